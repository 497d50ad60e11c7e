package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// cpu returns the CPU time of a process so far, in steps of 10 ms.
func (p *process) cpu() time.Duration {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	user, err := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err := errors.Join(err, err2); err != nil {
		p.t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// costs returns the CPU time of a process for each of the n things that f does, minus
// what the process uses at rest.
func (p *process) costs(f func() int64) (each time.Duration, n int64) {
	p.t.Helper()
	testenv.ReadsClock(p.t, time.Second, "the processor's time for strangers is measured, minus that of a second at rest")
	begun, before := time.Now(), p.cpu()
	time.Sleep(time.Second)
	rest := float64(p.cpu()-before) / float64(time.Since(begun))
	begun, before = time.Now(), p.cpu()
	n = f()
	used := p.cpu() - before - time.Duration(rest*float64(time.Since(begun)))
	return used / time.Duration(max(n, 1)), n
}

// TestLengthyStrangersCost measures the CPU time of a sidecar for a datagram without the key,
// and for a failed handshake. The figures are printed (-v) and judged loosely, because
// the machine may be slow or busy.
func TestLengthyStrangersCost(t *testing.T) {
	testenv.Takes(t, 25*time.Second)
	const loosely = 10
	file := peer.NewKeyFile()
	for keys := range 3 {
		if keys++; keys == 2 {
			continue
		}
		text := file
		for range keys - 1 {
			text += peer.NewKeyLine()
		}
		c := newKeyedPair(t, text)
		a := c.hosts[0]
		each, n := a.costs(func() int64 { return c.strayDatagrams(5_000) })
		t.Logf("%d keys: %v of CPU for each of %d stray datagrams of 1,014 bytes", keys, each, n)
		if n < 3_000 || each > loosely*100*time.Microsecond {
			t.Errorf("%d keys: %v of CPU for each of %d", keys, each, n)
		}
		if keys > 1 {
			continue
		}
		other := newOutsider(t, secondHost, peer.NewKeyFile()).set.Certificate
		for _, tc := range []struct {
			name  string
			shows []tls.Certificate
			edit  func(*tls.Config)
		}{
			{name: "without a certificate"},
			{name: "under another key's certificate", shows: []tls.Certificate{other}},
			{name: "with the costliest curve", edit: func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP521} }},
			{name: "under a chain of 100 of the costliest certificates", shows: []tls.Certificate{costlyChain(t, 100)}},
			{name: "under as many of them as are read", shows: []tls.Certificate{costlyChain(t, 24)}},
			{name: "under a chain of 4 of them", shows: []tls.Certificate{costlyChain(t, 4)}},
		} {
			each, n := a.costs(func() int64 { return c.failedHandshakes(150, tc.shows, tc.edit) })
			t.Logf("%v of CPU for each of %d handshakes %s", each, n, tc.name)
			if n < 100 || each > loosely*time.Millisecond {
				t.Errorf("%s: %v of CPU for each of %d", tc.name, each, n)
			}
		}
	}
}

// strayDatagrams sends datagrams that no key opens, 5,000 a second, and returns how many
// were counted. It sends more while less than two thirds of n are: a host that has no
// processor for a moment loses some.
func (c *keyedPair) strayDatagrams(n int) int64 {
	c.t.Helper()
	nc, err := net.Dial("udp", c.gossip[0])
	if err != nil {
		c.t.Fatal(err)
	}
	defer nc.Close()
	const counted = `cachesidecar_gossip_dropped_total{reason="garbage"}`
	before := metric(c.t, c.page, counted)
	b := make([]byte, 1000)
	_, _ = rand.Read(b)
	b[0] = 1
	b = labelled(b)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for try := 0; ; try++ {
		for i := range n {
			_, _ = nc.Write(b)
			if i%50 == 49 {
				<-tick.C
			}
		}
		time.Sleep(100 * time.Millisecond) // for late ones
		if came := int64(metric(c.t, c.page, counted) - before); came >= int64(n)*2/3 || try == 10 {
			return came
		}
	}
}

// failedHandshakes makes failing handshakes, 150 a second so that none is shed, and
// returns how many were counted.
func (c *keyedPair) failedHandshakes(n int, shows []tls.Certificate, edit func(*tls.Config)) int64 {
	c.t.Helper()
	cfg := &tls.Config{InsecureSkipVerify: true, Certificates: shows, NextProtos: []string{"cachesidecar-peer/1"}}
	if edit != nil {
		edit(cfg)
	}
	failed := func() int64 {
		var st cachesidecar.Stats
		c.hosts[0].document(&st, "stats")
		return st.Cluster.Links.Failed
	}
	before := failed()
	tick := time.NewTicker(time.Second / 150)
	defer tick.Stop()
	for range n {
		<-tick.C
		nc, err := net.DialTimeout("tcp", c.peer[0], testenv.Patience)
		if err != nil {
			c.t.Fatal(err)
		}
		_ = nc.SetDeadline(testenv.Deadline())
		secured := tls.Client(nc, cfg)
		if secured.Handshake() == nil {
			_, _ = io.Copy(io.Discard, secured) // until it is refused
		}
		_ = nc.Close()
	}
	time.Sleep(100 * time.Millisecond)
	return failed() - before
}

// costlyChain returns a certificate whose key is on the curve with the most expensive
// verification, and many other certificates that could each have signed it.
func costlyChain(t *testing.T, n int) (chain tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "c"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: testenv.Date().Add(-time.Hour), NotAfter: testenv.Date().Add(time.Hour),
	}
	chain.PrivateKey = key
	other, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		by := other // for all but the first, so that their signatures are wrong
		if i == 0 {
			by = key
		}
		template.SerialNumber.SetInt64(int64(i + 1))
		signed := *template
		signed.PublicKey = nil
		der, err := x509.CreateCertificate(rand.Reader, &signed, template, by.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		chain.Certificate = append(chain.Certificate, der)
	}
	return chain
}
