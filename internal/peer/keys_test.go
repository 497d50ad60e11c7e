package peer

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

const (
	seedLine = "seed: 0123456789abcdef\n"
	hexA     = "aa00000000000000000000000000000000000000000000000000000000000001"
	hexB     = "bb00000000000000000000000000000000000000000000000000000000000002"
)

// write creates a file and returns its path.
func write(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	testenv.Must(t, os.WriteFile(path, []byte(text), 0o600))
	testenv.Must(t, os.Chmod(path, mode))
	return path
}

func set(t *testing.T, node, text string) *Credentials {
	t.Helper()
	s, err := KeyPaths{ClusterKey: write(t, "key", text, 0o600)}.Read().Credentials(node, testenv.Date())
	testenv.Must(t, err)
	return s
}

func TestParseKeyFile(t *testing.T) {
	f, err := ParseKeyFile([]byte("\n# a cluster\r\n " + seedLine + "key: " + hexB + " # new\r\n\tkey:" + strings.ToUpper(hexA)))
	testenv.Must(t, err)
	if f.Seed != 0x0123456789abcdef || len(f.Keys) != 2 || f.Keys[0][0] != 0xbb || f.Keys[1][31] != 1 {
		t.Errorf("%+v", f)
	}
	var many strings.Builder
	for i := range maxKeys + 1 {
		fmt.Fprintf(&many, "key: %064x\n", i+1)
	}
	for _, tc := range []struct{ name, text, want string }{
		{"nothing", "", "no line with a seed: take that of the other hosts' files"},
		{"no seed", "key: " + hexA, "no line with a seed"},
		{"no key", seedLine, "no line with a key"},
		{"two seeds", seedLine + "\n" + seedLine, "line 3: a seed is there already, at line 1"},
		{"a short seed", "seed: 12", "line 1: seed: 2 characters: give 16 hexadecimal digits"},
		{"a short key", seedLine + "key: " + hexA[1:], "line 2: key: 63 characters: give 64 hexadecimal digits"},
		{"no digits", "key: " + strings.Repeat("s", 64), "line 1: key: there is more than hexadecimal digits"},
		{"zeros", "key: " + strings.Repeat("0", 64), "line 1: key: all zeros are no secret"},
		{"the same key", seedLine + "key: " + hexA + "\nkey: " + strings.ToUpper(hexA), "line 3: this key is there already, at line 2"},
		{"too many", seedLine + many.String(), "line 10: more than 8 keys"},
		{"a bare key", seedLine + hexA, "line 2: neither a seed, nor a key, nor a comment"},
		{"another word", "secret: " + hexA, "line 1: neither"},
	} {
		_, err := ParseKeyFile([]byte(tc.text))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
			continue
		}
		for _, secret := range []string{hexA[:20], "sss", "0123456789abcdef"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: %v shows the file's content", tc.name, err)
			}
		}
	}
}

func TestNewKeyFile(t *testing.T) {
	a, err := ParseKeyFile([]byte(NewKeyFile()))
	testenv.Must(t, err)
	b, err := ParseKeyFile([]byte(NewKeyFile() + NewKeyLine()))
	testenv.Must(t, err)
	if len(a.Keys) != 1 || len(b.Keys) != 2 || a.Seed == b.Seed || a.Keys[0] == b.Keys[0] || b.Keys[0] == b.Keys[1] {
		t.Errorf("%+v, %+v", a, b)
	}
}

func FuzzParseKeyFile(f *testing.F) {
	f.Add([]byte(NewKeyFile()))
	f.Add([]byte(seedLine + "key: " + hexA + "\nkey: " + hexB))
	f.Add([]byte("seed:\x00\nkey:: # \r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := ParseKeyFile(text)
		if err != nil {
			if k != nil || len(err.Error()) > 300 {
				t.Errorf("%v, with %v", err, k)
			}
			return
		}
		if len(k.Keys) == 0 || len(k.Keys) > maxKeys || k.Seed == 0 {
			t.Errorf("%d keys, seed %d", len(k.Keys), k.Seed)
		}
		again := fmt.Sprintf("seed: %016x\n", k.Seed)
		for _, key := range k.Keys {
			again += fmt.Sprintf("key: %x\n", key)
		}
		if k2, err := ParseKeyFile([]byte(again)); err != nil || fmt.Sprint(k2) != fmt.Sprint(k) {
			t.Errorf("read again: %v, %v", k2, err)
		}
	})
}

// TestDerived pins the derived values. With other values, hosts that run now would be
// locked out.
func TestDerived(t *testing.T) {
	f, err := ParseKeyFile([]byte(seedLine + "key: " + hexA))
	testenv.Must(t, err)
	k := f.Keys[0]
	a, err := k.authority()
	testenv.Must(t, err)
	b, _ := k.authority()
	if !bytes.Equal(a.cert.Raw, b.cert.Raw) {
		t.Error("the authority's certificate is another one each time")
	}
	got := fmt.Sprintf("%x %s %s %x", k.gossip(), k.Fingerprint(), SeedDigest(f.Seed), a.cert.PublicKey)
	const want = "511bcca6f726de1d4890caf1ef5e270b2f458d861eb19f40b33210d6482cd029 cae678b3 749ca0495c94fff6 " +
		"ddb92d704a7c5421462423dc9d4e075484938cc2ef125eacb85c01cf72a3a4d5"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if bytes.Equal(k.gossip(), k.derive(labelAuthority, 32)) {
		t.Error("two labels make one secret")
	}
}

// verifies reports whether one host accepts another host's certificate.
func verifies(by, of *Credentials, use x509.ExtKeyUsage) (root *x509.Certificate, err error) {
	chains, err := of.Certificate.Leaf.Verify(x509.VerifyOptions{Roots: by.Roots, KeyUsages: []x509.ExtKeyUsage{use}})
	if err != nil {
		return nil, err
	}
	chain := chains[0]
	return chain[len(chain)-1], nil
}

// TestRotation checks that at each step of a rotation, hosts before and after the step
// accept each other. At the end of the rotation the old key is worth nothing.
func TestRotation(t *testing.T) {
	a, b := "key: "+hexA+"\n", "key: "+hexB+"\n"
	steps := []*Credentials{set(t, "a", seedLine+a), set(t, "a", seedLine+a+b), set(t, "a", seedLine+b+a), set(t, "a", seedLine+b)}
	for i := range steps {
		for j := range steps {
			far := i-j > 1 || j-i > 1
			for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
				root, err := verifies(steps[i], steps[j], use)
				if !far && (err != nil || !steps[i].trusted(root)) {
					t.Errorf("step %d refuses step %d: %v", i, j, err)
				}
			}
			used := bytes.Equal(steps[i].Gossip[0], steps[j].Gossip[0])
			for _, k := range steps[i].Gossip {
				used = used || bytes.Equal(k, steps[j].Gossip[0])
			}
			if !far && !used {
				t.Errorf("step %d does not read the gossip of step %d", i, j)
			}
		}
	}
	old, last := steps[0], steps[3]
	root, err := verifies(old, old, x509.ExtKeyUsageServerAuth)
	if err != nil || !old.trusted(root) || last.trusted(root) {
		t.Errorf("the old root after its key is removed: %v", err)
	}
	if _, err := verifies(last, old, x509.ExtKeyUsageServerAuth); err == nil {
		t.Error("a certificate of the removed key is accepted")
	}
	if steps[1].Fingerprint != old.Fingerprint || steps[2].Fingerprint != last.Fingerprint || old.Fingerprint == last.Fingerprint {
		t.Error("fingerprints are not the first key's")
	}
}

// TestNodeNames checks that only hosts that have the key can read the node's name in a
// certificate.
func TestNodeNames(t *testing.T) {
	text := seedLine + "key: " + hexA
	for _, node := range []string{"host-a", "a_b", "10.0.0.1", "x/y:z", "*", "häuschen", strings.Repeat("n", 128)} {
		s, other := set(t, node, text), set(t, "other", text)
		root, err := verifies(other, s, x509.ExtKeyUsageServerAuth)
		if err != nil {
			t.Fatalf("%s: %v", node, err)
		}
		leaf := s.Certificate.Leaf
		if got := other.names(root, leaf); len(got) != 1 || got[0] != node {
			t.Errorf("%s: named %q", node, got)
		}
		if node != "*" && bytes.Contains(leaf.Raw, []byte(node)) {
			t.Errorf("%s: the certificate shows the name", node)
		}
		if got := set(t, "b", seedLine+"key: "+hexB).names(root, leaf); len(got) == 1 && got[0] == node {
			t.Errorf("%s: another key reads the name", node)
		}
		leaf.DNSNames = []string{node, "00", strings.Repeat("0", 80)}
		if got := other.names(root, leaf); len(got) != 0 {
			t.Errorf("%s: named %q by what is not hidden", node, got)
		}
	}
}
