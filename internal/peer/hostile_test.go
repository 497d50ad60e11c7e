package peer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/peertest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// knife cuts a connection's output after a number of bytes.
type knife struct {
	*net.TCPConn
	left, wrote int
}

func (k *knife) Write(b []byte) (int, error) {
	k.wrote += len(b)
	part := b[:min(len(b), k.left)]
	k.left -= len(part)
	if _, err := k.TCPConn.Write(part); err != nil {
		return 0, err
	}
	if k.left == 0 {
		_ = k.CloseWrite()
	}
	return len(b), nil
}

// shake does a handshake of which the server gets at most n bytes, waits until the connection ends,
// and returns how many bytes the server would have got.
func shake(t *testing.T, address string, cfg *tls.Config, n int) int {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	testenv.Must(t, err)
	defer nc.Close()
	_ = nc.SetDeadline(testenv.Deadline())
	k := &knife{TCPConn: nc.(*net.TCPConn), left: n}
	_ = tls.Client(k, cfg).Handshake()
	if k.left > 0 {
		_ = k.CloseWrite()
	}
	if _, err := io.ReadAll(k); isTimeout(err) {
		t.Errorf("cut after %d bytes: the connection stays", n)
	}
	return k.wrote
}

// TestHandshakeCutShort checks that a handshake with the key fails if it is cut anywhere before its end.
func TestHandshakeCutShort(t *testing.T) {
	a := peertest.NewAuthority(t, "one")
	s := serveKeys(t, identity("b", 2), newKeys(t, "b", a).get, nil, nil)
	cfg := newKeys(t, "a", a).get().config(expect("b"))
	whole, cuts := shake(t, s.address, cfg, 1<<20), int64(1)
	for n := 0; n < whole; n += 1 + whole/100 {
		shake(t, s.address, cfg, n)
		cuts++
	}
	shake(t, s.address, cfg, whole-1)
	testenv.Eventually(t, "all but one to fail", func() bool {
		st := s.Stats()
		return st.Handshakes == 1 && st.Failed == cuts
	})
	if n := s.served.Load(); n != 0 {
		t.Errorf("%d were served", n)
	}
}

// TestCostOfStrangers checks that no handshake of a stranger costs much, whatever certificates it
// shows: at most eight times what it costs without any, and the costliest take a half of that. The stranger's own
// part is included. It costs 40 times as much if verify takes a chain of any length and begins at the leaf, as x509
// alone does.
func TestCostOfStrangers(t *testing.T) {
	const handshakes, most = 20, 8
	testenv.Takes(t, time.Second)
	ours, theirs := peertest.NewAuthority(t, "ours"), peertest.NewAuthority(t, "theirs")
	s := serveKeys(t, identity("b", 2), newKeys(t, "b", ours).get, nil, nil)
	failed, plain := int64(0), time.Duration(0)
	for _, tc := range []struct {
		name  string
		shows []tls.Certificate
	}{
		{name: "without a certificate"},
		{name: "under another key's certificate", shows: []tls.Certificate{theirs.Certificate(t, []string{"a"})}},
		{name: "under a chain of 100 of the costliest certificates", shows: []tls.Certificate{costlyChain(t, 100)}},
		{name: "under as many of them as are read", shows: []tls.Certificate{costlyChain(t, 24)}},
		{name: "under a chain of 4 of them", shows: []tls.Certificate{costlyChain(t, 4)}},
	} {
		cfg := &tls.Config{InsecureSkipVerify: true, Certificates: tc.shows, NextProtos: []string{protocol}}
		before := cpuTime(t)
		for range handshakes {
			shake(t, s.address, cfg, 1<<20)
		}
		each := (cpuTime(t) - before) / handshakes
		failed += handshakes
		t.Logf("%v for each handshake %s", each, tc.name)
		if tc.shows == nil {
			plain = each
		}
		if each > most*plain {
			t.Errorf("%s: %v for each handshake, and %v without certificates", tc.name, each, plain)
		}
		testenv.Eventually(t, "all to fail", func() bool { return s.Stats().Failed == failed })
	}
}

// costlyChain returns a certificate whose key is on the curve with the most expensive
// verification, and many other certificates that could each have signed it.
func costlyChain(t *testing.T, n int) (chain tls.Certificate) {
	t.Helper()
	own, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	testenv.Must(t, err)
	other, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	testenv.Must(t, err)
	chain.PrivateKey = own
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "c"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: testenv.Date().Add(-time.Hour), NotAfter: testenv.Date().Add(time.Hour),
	}
	by := own
	for i := range n {
		template.SerialNumber = big.NewInt(int64(i + 1))
		der, err := x509.CreateCertificate(rand.Reader, template, template, by.Public(), own)
		testenv.Must(t, err)
		chain.Certificate = append(chain.Certificate, der)
		by = other // so that the signatures of all but the first are wrong
	}
	return chain
}
