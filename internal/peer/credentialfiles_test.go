package peer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestGuarded checks that a secret that other users can read, and a file that other
// users can write, are refused with the remedy.
func TestGuarded(t *testing.T) {
	good := seedLine + "key: " + hexA
	for _, tc := range []struct {
		mode os.FileMode
		want string // "" means accepted
	}{
		{0o600, ""}, {0o400, ""}, {0o440, ""}, {0o640, ""},
		{0o644, "it contains a secret and has mode 0644, which lets other users read or change it: chmod 0640 it, or 0600"},
		{0o604, "chmod 0600"}, {0o601, "chmod 0600"}, {0o660, "chmod 0640 it, or 0600"}, {0o602, "chmod 0600"},
	} {
		path := write(t, "key", good, tc.mode)
		_, err := KeyPaths{ClusterKey: path}.Read().Credentials("a", testenv.Date())
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%04o: %v", tc.mode, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "cluster_key_file "+path+": ")):
			t.Errorf("%04o: %v, want %q", tc.mode, err, tc.want)
		}
	}
	if os.Geteuid() == 0 {
		path := write(t, "key", good, 0o600)
		testenv.Must(t, os.Chown(path, 12345, 0))
		if _, err := (KeyPaths{ClusterKey: path}).Read().Credentials("a", testenv.Date()); err == nil || !strings.Contains(err.Error(), "belongs to uid 12345") {
			t.Errorf("another user's file: %v", err)
		}
	}
}

func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	testenv.Must(t, syscall.Mkfifo(pipe, 0o600))
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file",
		dir:                        "no regular file",
		pipe:                       "no regular file",
		"key":                      "give the whole path",
		write(t, "big", strings.Repeat("#", 1+64<<10), 0o600): "more than 65536 bytes",
		write(t, "empty", "", 0o600):                          "no line with a seed",
	} {
		if _, err := (KeyPaths{ClusterKey: path}).Read().Credentials("a", testenv.Date()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

// TestDigest checks that the digest changes with the files' content and with whether
// they can be read. A symbolic link that is changed to another target counts as a
// change.
func TestDigest(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	p := KeyPaths{ClusterKey: link}
	seen := map[[32]byte]bool{}
	look := func(what string) {
		t.Helper()
		d := p.Read().digest()
		if seen[d] {
			t.Errorf("%s: seen before", what)
		}
		if seen[d] = true; p.Read().digest() != d {
			t.Errorf("%s: another one at once", what)
		}
	}
	look("nothing there")
	for name, mode := range map[string]os.FileMode{"a": 0o644, "b": 0o602} {
		path := filepath.Join(dir, name)
		testenv.Must(t, os.WriteFile(path, []byte(name), 0o600))
		testenv.Must(t, os.Symlink(path, link+"-"))
		testenv.Must(t, os.Rename(link+"-", link))
		look(name)
		testenv.Must(t, os.Chmod(path, mode))
		look(name + ", open to others")
	}
	two := KeyPaths{ClusterKey: write(t, "1", "xy", 0o600), Cert: write(t, "2", "z", 0o600)}
	other := KeyPaths{ClusterKey: write(t, "1", "x", 0o600), Cert: write(t, "2", "yz", 0o600)}
	if two.Read().digest() == other.Read().digest() {
		t.Error("a byte that moves from one file to the next changes nothing")
	}
}

// ca is a certificate authority for tests.
type ca struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCA(t *testing.T) *ca {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	testenv.Must(t, err)
	c := &ca{key: key}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: testenv.Date().Add(-time.Hour), NotAfter: testenv.Date().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err == nil {
		c.cert, err = x509.ParseCertificate(der)
	}
	testenv.Must(t, err)
	return c
}

func encode(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// leaf returns a certificate and its private key, both in PEM.
func (c *ca) leaf(t *testing.T, edit func(*x509.Certificate)) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	testenv.Must(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{"a", "host-a.test"}, NotBefore: testenv.Date().Add(-time.Hour), NotAfter: testenv.Date().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	edit(tmpl)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, c.cert, k.Public(), c.key)
	testenv.Must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(k)
	testenv.Must(t, err)
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", private)
}

func TestCertificateFiles(t *testing.T) {
	keyFile := write(t, "cluster", seedLine+"key: "+hexA, 0o600)
	one, other := newCA(t), newCA(t)
	root := encode("CERTIFICATE", one.cert.Raw)
	good, key := one.leaf(t, func(*x509.Certificate) {})
	paths := func(cert, key, root string) KeyPaths {
		return KeyPaths{ClusterKey: keyFile, Cert: write(t, "cert", cert, 0o644), Key: write(t, "key", key, 0o600), CA: write(t, "ca", root, 0o644)}
	}
	p := paths(good, key, encode("CERTIFICATE", other.cert.Raw)+root)
	s, err := p.Read().Credentials("a", testenv.Date())
	testenv.Must(t, err)
	derived := set(t, "a", seedLine+"key: "+hexA)
	if !s.trusted(one.cert) || !s.trusted(other.cert) || s.Keys != 1 || s.Seed == 0 || string(s.Gossip[0]) != string(derived.Gossip[0]) {
		t.Errorf("%+v", s)
	}
	if _, err := verifies(s, derived, x509.ExtKeyUsageServerAuth); err == nil {
		t.Error("a derived certificate is accepted beside files")
	}
	if _, err := verifies(s, s, x509.ExtKeyUsageClientAuth); err != nil {
		t.Error(err)
	}
	leaf := func(by *ca, edit func(*x509.Certificate)) KeyPaths {
		c, k := by.leaf(t, edit)
		return paths(c, k, root)
	}
	open := p
	open.Key = write(t, "key", key, 0o644)
	_, strange := one.leaf(t, func(*x509.Certificate) {})
	for name, tc := range map[string]struct {
		p    KeyPaths
		want []string
	}{
		"another name":      {leaf(one, func(c *x509.Certificate) { c.DNSNames = []string{"b", "*"} }), []string{"tls.cert /", `names ["b" "*"]`, `this node is "a"`, "or set node"}},
		"no name":           {leaf(one, func(c *x509.Certificate) { c.DNSNames = nil }), []string{"names no host"}},
		"another authority": {leaf(other, func(*x509.Certificate) {}), []string{"tls.cert /", "other hosts would refuse it", "tls.ca /"}},
		"expired":           {leaf(one, func(c *x509.Certificate) { c.NotAfter = testenv.Date().Add(-time.Minute) }), []string{"tls.cert /", "expired"}},
		"for servers alone": {leaf(one, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }), []string{"for servers and clients"}},
		"a long chain":      {paths(good+strings.Repeat(root, 4), key, root), []string{"tls.cert /", "5 certificates in it", "take 4", "tls.ca /"}},
		"many names": {leaf(one, func(c *x509.Certificate) {
			c.DNSNames = slices.Repeat(append(c.DNSNames, strings.Repeat("n", 200)), 60)
		}), []string{"tls.cert /", "other hosts take 12288"}},
		"another's key":      {paths(good, strange, root), []string{"tls.cert /", "tls.key /", "does not match"}},
		"no certificate":     {paths("", key, root), []string{"tls.cert /", "in PEM"}},
		"no authority":       {paths(good, key, "x"), []string{"tls.ca /", "no certificate in it"}},
		"a broken authority": {paths(good, key, encode("CERTIFICATE", []byte("x"))), []string{"tls.ca /", "certificate 1: "}},
		"a key for all":      {open, []string{"tls.key /", "it contains a secret and has mode 0644", "chmod 0640 it, or 0600"}},
	} {
		_, err := tc.p.Read().Credentials("a", testenv.Date())
		if err == nil {
			t.Errorf("%s: it is taken", name)
			continue
		}
		for _, want := range tc.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q does not say %q", name, err, want)
			}
		}
	}
}

func TestCheckPaths(t *testing.T) {
	for _, tc := range []struct {
		p    KeyPaths
		want string
	}{
		{KeyPaths{}, ""},
		{KeyPaths{ClusterKey: "/k"}, ""},
		{KeyPaths{"/k", "/c", "/p", "/r"}, ""},
		{KeyPaths{ClusterKey: "/k", Cert: "/c", CA: "/r"}, "tls.key is not given"},
		{KeyPaths{ClusterKey: "/k", Key: "/p"}, "tls.cert is not given"},
		{KeyPaths{Cert: "/c", Key: "/p", CA: "/r"}, "cluster_key_file is not: gossip has no certificates"},
	} {
		if err := tc.p.Check(); tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%+v: %v, want %q", tc.p, err, tc.want)
		}
	}
}
