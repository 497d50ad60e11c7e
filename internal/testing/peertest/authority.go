// Package peertest makes certificates and key files for tests of connections between
// sidecars.
package peertest

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"
)

// Authority signs certificates.
type Authority struct {
	Root *x509.Certificate // the authority's own certificate
	key  ed25519.PrivateKey
}

// The period of validity includes virtual time, which begins in the year 2000.
var (
	notBefore = time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC)
	notAfter  = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
)

// NewAuthority returns a root authority.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	return (*Authority)(nil).Authority(t, name)
}

// Authority returns an authority whose certificate a has signed. If a is nil, it is a
// root. The edits may change the certificate before it is signed.
func (a *Authority) Authority(t testing.TB, name string, edits ...func(*x509.Certificate)) *Authority {
	t.Helper()
	made := &Authority{}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	made.key = private
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: notBefore, NotAfter: notAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	for _, edit := range edits {
		edit(template)
	}
	if a == nil {
		a = &Authority{Root: template, key: private}
	}
	made.Root = sign(t, template, a.Root, public, a.key)
	return made
}

// Certificate returns a node's certificate for the names. The edits may change it before
// it is signed.
func (a *Authority) Certificate(t testing.TB, names []string, edits ...func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: notBefore, NotAfter: notAfter, DNSNames: names,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, edit := range edits {
		edit(template)
	}
	leaf := sign(t, template, a.Root, public, a.key)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: private, Leaf: leaf}
}

func sign(
	t testing.TB, template, parent *x509.Certificate, public ed25519.PublicKey, private ed25519.PrivateKey,
) *x509.Certificate {
	t.Helper()
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, public, private)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
