package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// paced is connections that enter, and the list of those that have begun.
type paced struct {
	p      acceptQueue
	names  map[*Conn]string
	budget *quota.Budget

	mu   sync.Mutex
	list []string
}

// begin notes that a connection has begun.
func (s *paced) begin(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, name)
}

// begun returns the connections that have begun, in their order.
func (s *paced) begun() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

// enter makes a connection of a tenant's process enter.
func (s *paced) enter(ctx context.Context, nc net.Conn, tenant, process string) {
	if s.budget == nil {
		s.budget = quota.NewBudget(0)
	}
	c := &Conn{account: s.budget.Open(tenant, process)}
	c.socket.Conn = nc
	if s.names == nil {
		s.names = map[*Conn]string{}
	}
	s.names[c] = tenant + process
	switch now, waits := s.p.enter(c); {
	case now:
		s.begin(s.names[c])
	case waits != nil:
		go s.p.beginConns(ctx, waits, func(c *Conn) { s.begin(s.names[c]) })
	}
}

// pipe returns a connection that does not show whether its client has gone.
func pipe() net.Conn { a, _ := net.Pipe(); return a }

// TestPace checks that acceptBurst connections of one tenant begin at once, and the rest
// one after another, with the processes in turn. Connections of other tenants do not wait
// for them.
func TestPace(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := &paced{p: acceptQueue{rate: 10}}
		for range acceptBurst + 20 {
			s.enter(t.Context(), pipe(), "a", "1")
		}
		s.enter(t.Context(), pipe(), "a", "2")
		s.enter(t.Context(), pipe(), "b", "3")
		s.enter(t.Context(), pipe(), "", "4")
		synctest.Wait()
		if n := len(s.begun()); n != acceptBurst+2 || !slices.Contains(s.begun(), "b3") || !slices.Contains(s.begun(), "4") {
			t.Fatalf("%d have begun at once", n)
		}
		if n := s.p.waiting(); n != 21 {
			t.Errorf("%d wait", n)
		}
		time.Sleep(210 * time.Millisecond)
		synctest.Wait()
		if late := s.begun()[acceptBurst+2:]; !slices.Equal(late, []string{"a1", "a2"}) {
			t.Errorf("after two turns %v have begun", late)
		}
		time.Sleep(1900 * time.Millisecond)
		synctest.Wait()
		if n := len(s.begun()); n != acceptBurst+23 || s.p.waiting() != 0 {
			t.Errorf("%d have begun, %d wait", n, s.p.waiting())
		}
	})
}

// TestPaceHasOneGoroutine checks that one goroutine at a time begins the connections of a tenant,
// even if none waits again and again.
func TestPaceHasOneGoroutine(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		p, budget := acceptQueue{rate: 10}, quota.NewBudget(0)
		var begin atomic.Int64
		var wg sync.WaitGroup
		defer wg.Wait()
		for i := range acceptBurst + 500 {
			c := &Conn{account: budget.Open("a", "1")}
			c.socket.Conn = pipe()
			if _, waits := p.enter(c); waits != nil {
				if begin.Add(1) > 1 {
					t.Errorf("connection %d brings another goroutine", i)
				}
				wg.Go(func() {
					p.beginConns(t.Context(), waits, func(*Conn) { time.Sleep(60 * time.Millisecond) })
					begin.Add(-1)
				})
			}
			if i >= acceptBurst {
				time.Sleep(time.Duration(90+i%20) * time.Millisecond)
				synctest.Wait()
			}
		}
	})
}

// TestPaceEnds checks that no connection waits for a turn once the server ends.
func TestPaceEnds(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &paced{p: acceptQueue{rate: 1e-3}}
		for range acceptBurst + 20 {
			s.enter(ctx, pipe(), "a", "1")
		}
		cancel()
		synctest.Wait()
		if n := len(s.begun()); n != acceptBurst+20 {
			t.Errorf("%d have begun", n)
		}
	})
}

// tenantEcho is an echo handler with a tenant.
type tenantEcho struct{ Handler }

func (tenantEcho) Account(b *quota.Budget) *quota.Account { return b.Open("a", "1") }

// TestPaceEndsWithItsListener checks that a server whose listener was closed ends without
// waiting for turns, too.
func TestPaceEndsWithItsListener(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	testenv.Must(t, err)
	h := newEcho()
	s := New(Limits{NewRate: 1e-3}, slog.New(slog.DiscardHandler), func(nc net.Conn) (Handler, error) {
		e, err := h.handler(nc)
		return tenantEcho{e}, err
	})
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context(), ln) }()
	for range acceptBurst + 20 {
		nc, err := net.Dial("unix", ln.Addr().String())
		testenv.Must(t, err)
		defer nc.Close()
	}
	eventually(t, "them to be accepted", s, func(st Stats) bool { return st.Waiting == 20 })
	_ = ln.Close()
	select {
	case err := <-done:
		if err == nil {
			t.Error("it says nothing of its listener")
		}
	case <-testenv.Expired():
		t.Fatal("it waits for connections that have not begun")
	}
}

// TestPaceForgets checks that tenants without new connections for a while are forgotten,
// and others are not.
func TestPaceForgets(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := &paced{p: acceptQueue{rate: 10}}
		for range acceptBurst {
			s.enter(t.Context(), pipe(), "busy", "1")
		}
		for i := range 10 * maxIdle {
			s.enter(t.Context(), pipe(), fmt.Sprint(i), "1")
			time.Sleep(time.Second / 100)
		}
		if n := len(s.p.tenants); n > maxIdle+1 || s.p.tenants["busy"] == nil {
			t.Errorf("%d tenants are remembered, the busy one: %v", n, s.p.tenants["busy"])
		}
	})
}

// TestPaceInOverload checks that most connections begin soon, at the full pace, if three
// times as many come as may begin; that another process of their tenant has its turns; and
// that those that were passed over begin when no more come.
func TestPaceInOverload(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		const rate, seconds = 100, 10
		var soon, late, others int
		var mu sync.Mutex // guards all of the above and below: another goroutine begins some connections
		came := map[*Conn]time.Time{}
		other := map[*Conn]bool{}
		p, budget := acceptQueue{rate: rate}, quota.NewBudget(0)
		begin := func(c *Conn) {
			mu.Lock()
			defer mu.Unlock()
			const moment = 100 * time.Millisecond
			switch waited := time.Since(came[c]); {
			case other[c]:
				if others++; waited > moment {
					t.Errorf("a process that makes one connection a second waits %v", waited)
				}
			case waited <= moment:
				soon++
			default:
				late++
			}
		}
		ended := make(chan struct{})
		come := func(process string) {
			c := &Conn{account: budget.Open("a", process)}
			c.socket.Conn = pipe()
			mu.Lock()
			came[c], other[c] = time.Now(), process == "2"
			mu.Unlock()
			switch now, waits := p.enter(c); {
			case now:
				begin(c)
			case waits != nil:
				go func() { p.beginConns(t.Context(), waits, begin); ended <- struct{}{} }()
			}
		}
		for range acceptBurst {
			come("1")
		}
		mu.Lock()
		soon = 0
		mu.Unlock()
		for i := range 3 * rate * seconds {
			time.Sleep(time.Second / (3 * rate))
			if come("1"); i%(3*rate) == 0 {
				come("2")
			}
		}
		mu.Lock()
		if soon < rate*seconds*8/10 || others < seconds-1 {
			t.Errorf("%d began soon, %d late, %d of the other process; want nearly %d soon, %d of the other",
				soon, late, others, rate*seconds, seconds)
		}
		mu.Unlock()
		<-ended
		mu.Lock()
		defer mu.Unlock()
		if n := soon + late + others; n != 3*rate*seconds+seconds || p.waiting() != 0 {
			t.Errorf("%d have begun, %d wait, want all %d to have begun", n, p.waiting(), 3*rate*seconds+seconds)
		}
	})
}

// TestPaceOfTheGone checks that most connections whose clients have gone take no turns, even those
// that have left a request.
func TestPaceOfTheGone(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	testenv.Must(t, err)
	defer ln.Close()
	const gone, there = 600, 200
	p, budget := &acceptQueue{rate: 1e-3}, quota.NewBudget(0)
	var waits *arrivals
	for i := range acceptBurst + gone + there {
		client, err := net.Dial("unix", ln.Addr().String())
		testenv.Must(t, err)
		defer client.Close()
		nc, err := ln.Accept()
		testenv.Must(t, err)
		defer nc.Close()
		c := &Conn{account: budget.Open("a", "1")}
		c.socket.Init(nc, 0, nil)
		if _, err := client.Write([]byte("\x00\x00\x00\x01x")); err != nil {
			t.Fatal(err)
		}
		if i >= acceptBurst && i%(1+gone/there) != 0 {
			_ = client.Close()
		}
		if _, n := p.enter(c); n != nil {
			waits = n
		}
	}
	turns, begun, ended := 0, 0, 0
	for p.continues(waits) {
		turns++
		for _, c := range p.next(waits) {
			if begun++; c.socket.HungUp() {
				ended++
			}
		}
	}
	if begun != gone+there || ended != gone || turns > there+gone/2 {
		t.Errorf("%d began in %d turns, %d of them were gone; want %d, fewer turns, and %d", begun, turns, ended, gone+there, gone)
	}
}

// ready is a listener for which connections always wait.
type ready struct{ net.Listener }

func (ready) Accept() (net.Conn, error) { return nil, nil }

// TestPaced checks that connections beyond the first ones come at their rate.
func TestPaced(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		ln := Paced(ready{}, 2000, 32)
		for _, tc := range []struct {
			conns int
			takes time.Duration
		}{{32, 0}, {200, 100 * time.Millisecond}} {
			began := time.Now()
			for range tc.conns {
				if _, err := ln.Accept(); err != nil {
					t.Fatal(err)
				}
			}
			if d := time.Since(began); d < tc.takes || d > tc.takes+2*time.Millisecond {
				t.Errorf("%d connections take %v, want %v", tc.conns, d, tc.takes)
			}
		}
	})
}
