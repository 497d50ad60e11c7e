package peer

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/settings"
)

// KeyPaths names the files. Each is an absolute path. Cert, Key and CA are given together
// or not at all.
type KeyPaths struct {
	ClusterKey    string
	Cert, Key, CA string // PEM: chain, its private key, accepted roots
}

// files lists the files with the names of their settings.
func (paths *KeyPaths) files() []file {
	return []file{
		{"cluster_key_file", paths.ClusterKey, true},
		{"tls.cert", paths.Cert, false}, {"tls.key", paths.Key, true}, {"tls.ca", paths.CA, false},
	}
}

type file struct {
	setting, path string
	secret        bool
}

// Check returns an error that names the missing file, if the combination of paths is
// incomplete.
func (paths KeyPaths) Check() error {
	given := 0
	var missing string
	for _, f := range paths.files()[1:] {
		if f.path != "" {
			given++
		} else if missing == "" {
			missing = f.setting
		}
	}
	switch {
	case given == 0:
		return nil
	case given < 3:
		return settings.Problemf(missing, "is not given: tls.cert, tls.key and tls.ca belong together: give all "+
			"three, or none")
	case paths.ClusterKey == "":
		return settings.Problemf("tls.cert", "is given and cluster_key_file is not: gossip has no certificates, "+
			"and would pass "+
			"between hosts for all to read and to forge: give both (\"cachesidecar key generate\" makes a key file)")
	}
	return nil
}

// keyContent is what the files contained at one moment.
type keyContent struct {
	paths KeyPaths
	bytes [4][]byte
	err   error // of the first file that could not be read
}

// Read reads the files. An error is kept, and is returned by Credentials.
func (paths KeyPaths) Read() *keyContent {
	c := &keyContent{paths: paths}
	for i, f := range paths.files() {
		if f.path == "" {
			continue
		}
		var err error
		if c.bytes[i], err = readKeys(f.path, f.secret); err != nil && c.err == nil {
			shown := ""
			if filepath.IsAbs(f.path) || len(f.path) < len(Key{}) { // else it may be a key in the place of its file
				shown = f.path
			}
			c.err = settings.Problemf(f.setting, "%s: %w", shown, err)
		}
	}
	return c
}

// digest returns a hash that differs between different contents. A read error is part
// of the content.
func (content *keyContent) digest() [32]byte {
	h := sha256.New()
	for _, b := range content.bytes {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
		_, _ = h.Write(b)
	}
	if content.err != nil {
		_, _ = h.Write([]byte(content.err.Error()))
	}
	return [32]byte(h.Sum(nil))
}

// Limits of the certificates in tls.cert. Other hosts accept no more.
const (
	maxBytes = 12 << 10 // bytes of all of them together, as DER
)

// Credentials makes the credentials of a host from the files. Errors name the file and show
// nothing of its content.
func (content *keyContent) Credentials(node string, now time.Time) (*Credentials, error) {
	if content.err != nil {
		return nil, content.err
	}
	f, err := ParseKeyFile(content.bytes[0])
	if err != nil {
		return nil, settings.Problemf("cluster_key_file", "%s: %w", content.paths.ClusterKey, err)
	}
	s := &Credentials{
		Seed: f.Seed, Keys: len(f.Keys), Fingerprint: f.Keys[0].Fingerprint(),
		Roots: x509.NewCertPool(), roots: map[string]*authority{},
	}
	for i := range f.Keys {
		s.Gossip = append(s.Gossip, f.Keys[i].gossip())
	}
	if content.paths.Cert != "" {
		return s, content.certificates(s, node, now)
	}
	for i := range f.Keys {
		a, err := f.Keys[i].authority()
		if err != nil {
			return nil, settings.Problemf("cluster_key_file", "%s: %w", content.paths.ClusterKey, err)
		}
		s.accept(a.cert, a)
		if i == 0 {
			if s.Certificate, err = a.issue(node); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// certificates fills s from the certificate files.
func (content *keyContent) certificates(s *Credentials, node string, now time.Time) error {
	p := &content.paths
	roots, err := parseRoots(content.bytes[3])
	if err != nil {
		return settings.Problemf("tls.ca", "%s: %w", p.CA, err)
	}
	for _, r := range roots {
		s.accept(r, nil)
	}
	s.Certificate, err = tls.X509KeyPair(content.bytes[1], content.bytes[2])
	if err != nil {
		return settings.Problemf("tls.cert", "%s and tls.key %s: %w: give a certificate and its private key, in PEM",
			p.Cert, p.Key, err)
	}
	if n := len(s.Certificate.Certificate); n > maxChain {
		return settings.Problemf("tls.cert", "%s: %d certificates in it, and other hosts take %d: "+
			"give this host's, and those between it and a root of tls.ca %s", p.Cert, n, maxChain, p.CA)
	}
	if n := len(slices.Concat(s.Certificate.Certificate...)); n > maxBytes {
		return settings.Problemf("tls.cert", "%s: its certificates have %d bytes, and other hosts take %d: "+
			"give ones with fewer names", p.Cert, n, maxBytes)
	}
	leaf := s.Certificate.Leaf
	if !slices.Contains(leaf.DNSNames, node) {
		return settings.Problemf("tls.cert", "%s: it names %s, and this node is %q: "+
			"give a certificate with the node's name among its DNS names, or set node", p.Cert, names(leaf), node)
	}
	chain := x509.NewCertPool()
	for _, der := range s.Certificate.Certificate[1:] {
		if cert, err := x509.ParseCertificate(der); err == nil {
			chain.AddCert(cert)
		}
	}
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		_, err := leaf.Verify(x509.VerifyOptions{
			Roots: s.Roots, Intermediates: chain, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use},
		})
		if err != nil {
			return settings.Problemf("tls.cert", "%s: other hosts would refuse it: %w: "+
				"give one that tls.ca %s has signed, for servers and clients", p.Cert, err, p.CA)
		}
	}
	return nil
}

// names returns up to 5 names of a certificate, for an error message.
func names(cert *x509.Certificate) string {
	if len(cert.DNSNames) == 0 {
		return "no host"
	}
	return fmt.Sprintf("%q", cert.DNSNames[:min(len(cert.DNSNames), 5)])
}

// parseRoots parses certificates in PEM. It returns an error if there is none.
func parseRoots(text []byte) (roots []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(roots)+1, err)
		}
		roots = append(roots, cert)
	}
	if len(roots) == 0 {
		return nil, errors.New("there is no certificate in it: give one in PEM")
	}
	return roots, nil
}
