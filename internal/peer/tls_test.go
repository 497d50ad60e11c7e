package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/testing/peertest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// keys has a node's credentials, which a test may change.
type keys struct{ now atomic.Pointer[Credentials] }

func (k *keys) get() *Credentials { return k.now.Load() }

// set shows a certificate of the first authority and accepts those of all.
func (k *keys) set(t testing.TB, node string, accepted ...*peertest.Authority) {
	t.Helper()
	c := &Credentials{
		Certificate: accepted[0].Certificate(t, []string{node}), Roots: x509.NewCertPool(), roots: map[string]*authority{},
	}
	for _, a := range accepted {
		c.accept(a.Root, nil)
	}
	k.now.Store(c)
}

func newKeys(t testing.TB, node string, accepted ...*peertest.Authority) *keys {
	t.Helper()
	k := &keys{}
	k.set(t, node, accepted...)
	return k
}

// secureServer is a server that records its log and its refusals.
type secureServer struct {
	*Server
	address string
	ended   atomic.Int64
	served  atomic.Int64 // greetings that were accepted
	mu      sync.Mutex
	refused []string
	log     bytes.Buffer
}

func (s *secureServer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(b)
}

func (s *secureServer) reasons() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String() + strings.Join(s.refused, "\n")
}

func serveKeys(t testing.TB, id *Identity, creds func() *Credentials, ln net.Listener, handler func(kv.Process, Purpose) server.Handler) *secureServer {
	t.Helper()
	if ln == nil {
		var err error
		if ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	s := &secureServer{address: ln.Addr().String()}
	s.Server = NewServer(id, creds, server.Limits{}, slog.New(slog.NewTextHandler(s, nil)),
		func(from kv.Process, p Purpose) server.Handler {
			s.served.Add(1)
			if handler != nil {
				return handler(from, p)
			}
			return &echo{from, p, &s.ended}
		},
		func(node kv.NodeID, err error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.refused = append(s.refused, fmt.Sprintf("%s: %v", quotedIfNeeded(string(node)), err))
		})
	runServer(t, s.Server, ln)
	return s
}

func newKeyPool(t testing.TB, id *Identity, k *keys) *Pool {
	p := patientPool(PoolConfig{Identity: id, Credentials: k.get})
	t.Cleanup(p.Close)
	return p
}

// TestTLSCalls checks that calls work with credentials as they do without.
func TestTLSCalls(t *testing.T) {
	a := peertest.NewAuthority(t, "one")
	b := identity("b", 2)
	s := serveKeys(t, b, newKeys(t, "b", a).get, nil, nil)
	p := newKeyPool(t, identity("a", 1), newKeys(t, "a", a))
	p.Set(b.Self, s.address)
	for _, purpose := range []Purpose{Call, Poll, Call} {
		if got, err := get(t, p, b.Self, purpose); got != "a "+string(purpose) || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	large := bytes.Repeat([]byte("v"), 3<<20) // many records, beyond a socket's buffer
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var answer Answer
			defer answer.Release()
			if err := p.Do(t.Context(), b.Self, Call, time.Minute, &wire.Request{Op: wire.OpSet, Key: []byte("k"), Value: large}, &answer); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if st := s.Stats(); st.Handshakes != 2 || st.Failed != 0 || st.Ungreeted != 0 {
		t.Errorf("%+v", st)
	}
}

// TestTLSRefuses checks that a client without a certificate of an accepted authority,
// or with another name than its certificate's, learns nothing and changes nothing. Each
// side says why.
func TestTLSRefuses(t *testing.T) {
	ours, theirs := peertest.NewAuthority(t, "ours"), peertest.NewAuthority(t, "theirs")
	expired := func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(time.Hour) }
	serverOnly := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection} }
	for _, tc := range []struct {
		name   string
		show   tls.Certificate
		server string // the name in the server's certificate
		want   string // part of the client's error
		there  string // part of the server's
	}{
		{"another key", theirs.Certificate(t, []string{"a"}), "b", "do not match", "signed by unknown authority"},
		{"another's name", ours.Certificate(t, []string{"c"}), "b", `calls itself a, and its certificate is of "c"`, "c: it calls itself a, and its certificate is of"},
		{"no name", ours.Certificate(t, nil), "b", "do not match", "names no node"},
		{"an old certificate", ours.Certificate(t, []string{"a"}, expired), "b", "do not match", "expired"},
		{"of another use", ours.Certificate(t, []string{"a"}, serverOnly), "b", "do not match", "key usage"},
		{"no certificate", tls.Certificate{}, "b", "do not match", "certificate"},
		{"a server of another name", ours.Certificate(t, []string{"a"}), "c", `its certificate is of "c", and not of b`, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := identity("b", 2)
			learnt := atomic.Bool{}
			b.Learn = func([]wire.Floor) { learnt.Store(true) }
			s := serveKeys(t, b, newKeys(t, tc.server, ours).get, nil, nil)
			k := newKeys(t, "a", ours)
			creds := *k.get()
			creds.Certificate = tc.show
			k.now.Store(&creds)
			var told atomic.Value
			p := patientPool(PoolConfig{Identity: identity("a", 1), Credentials: k.get, Greeted: func(_ kv.NodeID, _ kv.Process, err error) {
				told.Store(fmt.Sprint(err))
			}})
			defer p.Close()
			p.Set(b.Self, s.address)
			_, err := get(t, p, b.Self, Call)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !NotExecuted(err) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if said, _ := told.Load().(string); !strings.Contains(said, tc.want) {
				t.Errorf("told %q, want %q", said, tc.want)
			}
			testenv.Eventually(t, "the server says why", func() bool { return strings.Contains(s.reasons(), tc.there) })
			if s.served.Load() != 0 || learnt.Load() {
				t.Error("it was served")
			}
		})
	}
}

// TestTLSMixed checks that if only one side has a key, both are told what to do.
func TestTLSMixed(t *testing.T) {
	a := peertest.NewAuthority(t, "one")
	b := identity("b", 2)
	secure, plain := serveKeys(t, b, newKeys(t, "b", a).get, nil, nil), serveKeys(t, b, nil, nil, nil)
	p := newPool(t, identity("a", 1))
	p.Set(b.Self, secure.address)
	if _, err := get(t, p, b.Self, Call); err == nil || !strings.Contains(err.Error(), "speaks TLS alone: give all hosts the same cluster_key_file") {
		t.Errorf("in plain to one with a key: %v", err)
	}
	p = newKeyPool(t, identity("a", 1), newKeys(t, "a", a))
	p.Set(b.Self, plain.address)
	if _, err := get(t, p, b.Self, Call); err == nil || !strings.Contains(err.Error(), "it does not speak TLS: give all hosts the same cluster_key_file") {
		t.Errorf("with a key to one without: %v", err)
	}
	if secure.served.Load()+plain.served.Load() != 0 {
		t.Error("one was served")
	}
}

// TestTLSVersions checks that older versions of TLS are refused, and so are other
// programs that have a certificate of the same authority.
func TestTLSVersions(t *testing.T) {
	a := peertest.NewAuthority(t, "one")
	s := serveKeys(t, identity("b", 2), newKeys(t, "b", a).get, nil, nil)
	creds := newKeys(t, "a", a).get()
	for name, edit := range map[string]func(*tls.Config){
		"a costly curve":   func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP521} },
		"TLS 1.2":          func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
		"no protocol":      func(c *tls.Config) { c.NextProtos = nil },
		"another protocol": func(c *tls.Config) { c.NextProtos = []string{"h2"} },
	} {
		cfg := creds.config(func(*proof) error { return nil })
		cfg.VerifyConnection = nil
		edit(cfg)
		nc, err := tls.Dial("tcp", s.address, cfg)
		if err == nil { // the server checks the certificate after the client's handshake
			_ = nc.SetReadDeadline(testenv.Deadline())
			_, err = nc.Read(make([]byte, 1))
			_ = nc.Close()
		}
		if err == nil || isTimeout(err) {
			t.Errorf("%s is taken: %v", name, err)
		}
	}
	testenv.Eventually(t, "all have failed", func() bool { return s.Stats().Failed == 4 })
	if s.served.Load() != 0 {
		t.Error("one was served")
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// TestTLSChains checks that intermediate certificates are accepted in any order, with
// or without the root. A chain longer than maxChain is refused, and so is a chain that
// no root has signed, whatever else is in it.
func TestTLSChains(t *testing.T) {
	ours, theirs := peertest.NewAuthority(t, "ours"), peertest.NewAuthority(t, "theirs")
	between := ours.Authority(t, "between")
	below := between.Authority(t, "below")
	old := ours.Authority(t, "old", func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(time.Hour) })
	forged := theirs.Authority(t, "between")
	leaf := func(a *peertest.Authority) *x509.Certificate { return a.Certificate(t, []string{"a"}).Leaf }
	creds := newKeys(t, "b", ours).get()
	deep := leaf(below)
	for _, tc := range []struct {
		name  string
		chain []*x509.Certificate
		want  string // "" means accepted
	}{
		{"of the root", []*x509.Certificate{leaf(ours)}, ""},
		{"with the root", []*x509.Certificate{leaf(ours), ours.Root}, ""},
		{"of one between", []*x509.Certificate{leaf(between), between.Root}, ""},
		{"of two", []*x509.Certificate{deep, below.Root, between.Root}, ""},
		{"of two, and the root", []*x509.Certificate{deep, below.Root, between.Root, ours.Root}, ""},
		{"and another's beside", []*x509.Certificate{deep, below.Root, between.Root, theirs.Root}, ""},
		{"and another's before", []*x509.Certificate{deep, theirs.Root, below.Root, between.Root}, ""},
		{"of five", []*x509.Certificate{deep, below.Root, between.Root, ours.Root, theirs.Root}, "it shows 5 certificates: 4 are the most"},
		{"with one missing", []*x509.Certificate{deep, below.Root}, "unknown authority"},
		{"of one between that has ended", []*x509.Certificate{leaf(old), old.Root}, "expired"},
		{"of one that is none", []*x509.Certificate{leaf(between), leaf(ours)}, "unknown authority"},
		{"of one of its name", []*x509.Certificate{leaf(forged), between.Root}, "unknown authority"},
		{"of a forged one", []*x509.Certificate{leaf(forged), forged.Root}, "unknown authority"},
		{"of a forged one, and its root", []*x509.Certificate{leaf(forged), forged.Root, theirs.Root}, "unknown authority"},
	} {
		p, err := creds.verify(tc.chain)
		switch {
		case tc.want == "" && (err != nil || !p.root.Equal(ours.Root) || !p.is("a")):
			t.Errorf("%s: %v", tc.name, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}

// recorder keeps what is written to a connection.
type recorder struct {
	net.Conn
	mu  sync.Mutex
	log []byte
}

func (r *recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, b...)
	return r.Conn.Write(b)
}

func (r *recorder) recorded() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.log)
}

// record returns all bytes that a client sends for a greeting and a call.
func record(t *testing.T, s *secureServer, a *peertest.Authority) []byte {
	t.Helper()
	var r *recorder
	p := patientPool(PoolConfig{Identity: identity("a", 1), Credentials: newKeys(t, "a", a).get,
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
			r = &recorder{Conn: nc}
			return r, err
		}})
	defer p.Close()
	p.Set(kv.Process{Node: "b", Epoch: 2}, s.address)
	if _, err := get(t, p, kv.Process{Node: "b", Epoch: 2}, Call); err != nil {
		t.Fatal(err)
	}
	return r.recorded()
}

// TestTLSReplayed sends the bytes of another client's connection again: whole, in part,
// and changed. The server serves none of them and keeps working.
func TestTLSReplayed(t *testing.T) {
	a := peertest.NewAuthority(t, "one")
	b := identity("b", 2)
	s := serveKeys(t, b, newKeys(t, "b", a).get, nil, nil)
	whole := record(t, s, a)
	served := s.served.Load()
	random := rand.New(rand.NewPCG(1, 2))
	send := func(what []byte) {
		nc, err := net.Dial("tcp", s.address)
		testenv.Must(t, err)
		defer nc.Close()
		_, _ = nc.Write(what)
		_ = nc.(*net.TCPConn).CloseWrite()
		_ = nc.SetReadDeadline(testenv.Deadline())
		if _, err := io.Copy(io.Discard, nc); isTimeout(err) {
			t.Errorf("%d bytes: the connection stays open", len(what))
		}
	}
	send(whole)
	for i := 0; i+5 <= len(whole); i += 5 + int(whole[i+3])<<8 + int(whole[i+4]) { // where a record begins
		for _, n := range []int{i, i + 1, i + 4, i + 5} {
			send(whole[:n])
		}
	}
	for range 100 {
		send(whole[:random.IntN(len(whole))])
		changed := bytes.Clone(whole)
		for range 1 + random.IntN(4) {
			changed[random.IntN(len(changed))] ^= byte(1 + random.IntN(255))
		}
		send(changed)
	}
	if n := s.served.Load(); n != served {
		t.Errorf("%d connections were served", n-served)
	}
	p := newKeyPool(t, identity("a", 1), newKeys(t, "a", a))
	p.Set(b.Self, s.address)
	if _, err := get(t, p, b.Self, Call); err != nil {
		t.Errorf("a node after all that: %v", err)
	}
	testenv.Eventually(t, "all are greeted or gone", func() bool { return s.Stats().Ungreeted == 0 })
}

// cpuTime returns the CPU time that this process has used.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	testenv.Must(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkHandshake measures both sides' part of a handshake.
func BenchmarkHandshake(b *testing.B) {
	a := peertest.NewAuthority(b, "one")
	server, client := newKeys(b, "b", a).get(), newKeys(b, "a", a).get()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	testenv.Must(b, err)
	defer ln.Close()
	go func() { // ends with the listener
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			c := tls.Server(nc, server.config(func(*proof) error { return nil }))
			_ = c.Handshake()
			_, _ = c.Write([]byte{1})
			_ = c.Close()
		}
	}()
	begun := cpuTime(b)
	defer func() { b.ReportMetric(float64((cpuTime(b)-begun).Microseconds())/float64(b.N), "cpu-µs/op") }()
	for b.Loop() {
		c, err := tls.Dial("tcp", ln.Addr().String(), client.config(expect("b")))
		testenv.Must(b, err)
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			b.Fatal(err)
		}
		_ = c.Close()
	}
}
