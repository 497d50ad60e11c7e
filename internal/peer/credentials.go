package peer

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Credentials is what a node shows to other nodes and what it accepts from them, as its files
// say. A Credentials is replaced as a whole and never changed.
type Credentials struct {
	Seed        uint64
	Keys        int
	Fingerprint string          // of the first key
	Gossip      [][]byte        // secrets of gossip; the first is in use
	Certificate tls.Certificate // the leaf and its chain
	Roots       *x509.CertPool  // the authorities whose certificates are accepted

	roots map[string]*authority // the same, by DER; nil values: from certificate files
}

func (c *Credentials) accept(root *x509.Certificate, a *authority) {
	c.Roots.AddCert(root)
	c.roots[string(root.Raw)] = a
}

// trusted reports whether a certificate is one of the roots.
func (c *Credentials) trusted(root *x509.Certificate) bool {
	_, ok := c.roots[string(root.Raw)]
	return ok
}

// names returns the nodes that are named by a certificate under one of the roots.
func (c *Credentials) names(root, leaf *x509.Certificate) []string {
	if a := c.roots[string(root.Raw)]; a != nil {
		return a.named(leaf)
	}
	return leaf.DNSNames
}

// protocol is the ALPN name that both sides of a TLS connection must give. It keeps a
// sidecar from taking another program, with a certificate of the same authority, for a
// sidecar.
const protocol = "cachesidecar-peer/1"

// proof is what the other side's certificate has proved.
type proof struct {
	names []string // of the node; the greeting must use one of these names
	root  *x509.Certificate
}

// is reports whether the certificate belongs to a node.
func (pf *proof) is(node kv.NodeID) bool { return slices.Contains(pf.names, string(node)) }

// maxChain limits the certificates that a host shows: its own, and those of the
// authorities between it and a root.
const maxChain = 4

// curves are the key exchanges that a connection may use. A stranger chooses among
// them. Go's other curves cost more CPU and are left out.
var curves = []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256}

// config returns what both sides' TLS configurations have in common. It calls verified
// with the proof before anything is sent that depends on it.
//
// Go's own check accepts DNS names only, and nodes may have other names. That check is
// therefore off, and verify does the whole verification. Sessions are not resumed: they
// would outlive the keys under which they began.
func (c *Credentials) config(verified func(*proof) error) *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		Certificates:                []tls.Certificate{c.Certificate},
		NextProtos:                  []string{protocol},
		CurvePreferences:            curves,
		ClientAuth:                  tls.RequireAnyClientCert,
		InsecureSkipVerify:          true, // see VerifyConnection
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if s.NegotiatedProtocol != protocol {
				return credentialError("it does not speak " + protocol)
			}
			p, err := c.verify(s.PeerCertificates)
			if err != nil {
				return err
			}
			return verified(p)
		},
	}
}

// verify checks a chain of certificates against the roots, from its end to its
// beginning. Each certificate that may verify a signature is a root or was signed by
// one, so a stranger costs as many verifications as it shows certificates. x509 alone
// starts at the leaf and tries every other certificate on it: 100 certificates chosen
// by a stranger cost 130 ms.
func (c *Credentials) verify(chain []*x509.Certificate) (*proof, error) {
	switch {
	case len(chain) == 0:
		return nil, credentialError("it shows no certificate")
	case len(chain) > maxChain:
		return nil, credentialError(fmt.Sprintf("it shows %d certificates: %d are the most", len(chain), maxChain))
	}
	leaf, between := chain[0], x509.NewCertPool()
	var broken error // why an intermediate that leads to a root is not valid
	var unknown x509.UnknownAuthorityError
	for i := len(chain) - 1; i > 0; i-- {
		use := []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
		_, err := chain[i].Verify(x509.VerifyOptions{Roots: c.Roots, Intermediates: between, KeyUsages: use})
		if err == nil {
			between.AddCert(chain[i])
		} else if !errors.As(err, &unknown) {
			broken = err
		}
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: c.Roots, Intermediates: between,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	})
	if errors.As(err, &unknown) && broken != nil {
		err = broken
	}
	if err != nil {
		return nil, &tls.CertificateVerificationError{UnverifiedCertificates: chain, Err: err}
	}
	verified := chains[0]
	p := &proof{root: verified[len(verified)-1]}
	p.names = c.names(p.root, leaf)
	if len(p.names) == 0 {
		return nil, credentialError("its certificate names no node: " +
			"the subject alternative name must have the node's name")
	}
	return p, nil
}

// expect returns the check of the certificate of a node that was dialed.
func expect(node kv.NodeID) func(*proof) error {
	return func(p *proof) error {
		if p.is(node) {
			return nil
		}
		return credentialError(fmt.Sprintf("its certificate is of %s, and not of %s", shownAll(p.names), node))
	}
}

// credentialError says what is wrong with a certificate.
type credentialError string

func (bad credentialError) Error() string { return string(bad) }

// remoteAlert is the Op of crypto/tls's error when the other side sends an alert.
const remoteAlert = "remote error"

// mismatchRemedy returns what the operator should do if a handshake has failed for a lasting
// reason; "" if the reason may pass.
func mismatchRemedy(err error) (remedy string) {
	var verification *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var own credentialError
	var theirs *net.OpError
	switch {
	case errors.As(err, &record):
		return "it does not speak TLS: give all hosts the same cluster_key_file, and restart them"
	case errors.As(err, &verification), errors.As(err, &own), errors.As(err, &theirs) && theirs.Op == remoteAlert:
		return "the cluster keys or certificates of the two hosts do not match: compare their cluster_key_file, or tls"
	}
	return ""
}

// maxShown limits how much of a stranger's text is repeated, in bytes.
const maxShown = wire.MaxNameLen

// shown quotes and shortens a stranger's text for a message or a log.
func shown(s string) string {
	if len(s) <= maxShown {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%q… of %d bytes", s[:maxShown], len(s))
}

// quotedIfNeeded is shown, without the quotes where they are not needed.
func quotedIfNeeded(s string) string {
	q := shown(s)
	if q == `"`+s+`"` && !strings.ContainsAny(s, " \t") {
		return s
	}
	return q
}

// shownAll applies shown to a list and returns at most 4 of its elements.
func shownAll(list []string) string {
	const most = 4
	var b strings.Builder
	for i, s := range list {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(list)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(shown(s))
	}
	return b.String()
}

// trimmed shortens the other side's text to 4 KiB.
func trimmed(s string) string {
	const most = 4 << 10
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
