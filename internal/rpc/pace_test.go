package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// paced is connections that enter, and the list of those that have begun.
type paced struct {
	p     pace
	names map[*Conn]string

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

// enter makes a connection of an owner's process enter.
func (s *paced) enter(ctx context.Context, nc net.Conn, owner, process string) {
	c := &Conn{}
	c.socket.nc = nc
	if s.names == nil {
		s.names = map[*Conn]string{}
	}
	s.names[c] = owner + process
	switch now, ushers := s.p.enter(c, owner, process); {
	case now:
		s.begin(s.names[c])
	case ushers != nil:
		go s.p.usher(ctx, ushers, func(c *Conn) { s.begin(s.names[c]) }, nil)
	}
}

// pipe returns a connection that does not show whether its client has gone.
func pipe() net.Conn { a, _ := net.Pipe(); return a }

// TestPace checks that firstAtOnce connections of one owner begin at once, and the rest
// one after another, with the processes in turn. Connections of other owners do not wait
// for them.
func TestPace(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := &paced{p: pace{rate: 10}}
		for range firstAtOnce + 20 {
			s.enter(t.Context(), pipe(), "a", "1")
		}
		s.enter(t.Context(), pipe(), "a", "2")
		s.enter(t.Context(), pipe(), "b", "3")
		s.enter(t.Context(), pipe(), "", "4")
		synctest.Wait()
		if n := len(s.begun()); n != firstAtOnce+2 || !slices.Contains(s.begun(), "b3") || !slices.Contains(s.begun(), "4") {
			t.Fatalf("%d have begun at once", n)
		}
		if n := s.p.waiting(); n != 21 {
			t.Errorf("%d wait", n)
		}
		time.Sleep(210 * time.Millisecond)
		synctest.Wait()
		if late := s.begun()[firstAtOnce+2:]; !slices.Equal(late, []string{"a1", "a2"}) {
			t.Errorf("after two turns %v have begun", late)
		}
		time.Sleep(1900 * time.Millisecond)
		synctest.Wait()
		if n := len(s.begun()); n != firstAtOnce+23 || s.p.waiting() != 0 {
			t.Errorf("%d have begun, %d wait", n, s.p.waiting())
		}
	})
}

// TestPaceHasOneUsher checks that a lobby has one usher at a time, even if the lobby is
// empty again and again.
func TestPaceHasOneUsher(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		p := pace{rate: 10}
		var ushers atomic.Int64
		var wg sync.WaitGroup
		defer wg.Wait()
		for i := range firstAtOnce + 500 {
			c := &Conn{}
			c.socket.nc = pipe()
			if _, l := p.enter(c, "a", "1"); l != nil {
				if ushers.Add(1) > 1 {
					t.Errorf("connection %d brings another usher", i)
				}
				wg.Go(func() {
					p.usher(t.Context(), l, func(*Conn) { time.Sleep(60 * time.Millisecond) }, nil)
					ushers.Add(-1)
				})
			}
			if i >= firstAtOnce {
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
		s := &paced{p: pace{rate: 1e-3}}
		for range firstAtOnce + 20 {
			s.enter(ctx, pipe(), "a", "1")
		}
		cancel()
		synctest.Wait()
		if n := len(s.begun()); n != firstAtOnce+20 {
			t.Errorf("%d have begun", n)
		}
	})
}

// ownedEcho is an echo handler with an owner.
type ownedEcho struct{ Handler }

func (ownedEcho) Owner() (owner, process string) { return "a", "1" }

// TestPaceEndsWithItsListener checks that a server whose listener was closed ends without
// waiting for turns, too.
func TestPaceEndsWithItsListener(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	h := newEcho()
	s := NewServer(Limits{NewRate: 1e-3}, slog.New(slog.DiscardHandler), func(nc net.Conn) (Handler, error) {
		e, err := h.handler(nc)
		return ownedEcho{e}, err
	})
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context(), ln) }()
	for range firstAtOnce + 20 {
		nc, err := net.Dial("unix", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
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

// TestPaceForgets checks that owners without new connections for a while are forgotten,
// and others are not.
func TestPaceForgets(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := &paced{p: pace{rate: 10}}
		for range firstAtOnce {
			s.enter(t.Context(), pipe(), "busy", "1")
		}
		for i := range 10 * rested {
			s.enter(t.Context(), pipe(), fmt.Sprint(i), "1")
			time.Sleep(time.Second / 100)
		}
		if n := len(s.p.owners); n > rested+1 || s.p.owners["busy"] == nil {
			t.Errorf("%d owners are remembered, the busy one: %v", n, s.p.owners["busy"])
		}
	})
}

// TestPaceOfTheGone checks that a client that has gone takes no turn from the clients
// after it.
func TestPaceOfTheGone(t *testing.T) {
	testenv.ReadsClock(t, 300*time.Millisecond, "those that have gone end at a pace, and no faster")
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	pair := func() (here, there net.Conn) {
		there, err := net.Dial("unix", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		here, err = ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = here.Close(); _ = there.Close() })
		return here, there
	}
	for _, tc := range []struct {
		left string
		gone bool
	}{
		{"", true},
		{"\x00\x00\x00\x01x", false},
		{"\x00\x00\x00\x01x\x00\x00\x00\x00", false},
		{"\x00\x00\x00\x02x", true},
		{"\x00\x00", true},
		{"\x00\x00\x00\x00", true},
		{"\x00\x00\x10\x00" + strings.Repeat("x", 600), true},
		{"\x00\x00\x10\x01" + strings.Repeat("x", 4097), true},
		{"\x00\x00\x10\x00" + strings.Repeat("x", 4096), false},
	} {
		here, there := pair()
		if _, err := there.Write([]byte(tc.left)); err != nil {
			t.Fatal(err)
		}
		if hasGone(here, nil, 4096) {
			t.Errorf("a client that has left %.9q and is there has gone", tc.left)
		}
		_ = there.Close()
		if hasGone(here, nil, 4096) != tc.gone {
			t.Errorf("a client that has left %.9q has gone: %v, want %v", tc.left, !tc.gone, tc.gone)
		}
	}
	const gone = 600
	p := &pace{rate: 1}
	begun, ended := make(chan *Conn, 1000), make(chan *Conn, 1000)
	var last *Conn
	var lobby *lobby
	for i := range firstAtOnce + gone + 1 {
		here, there := pair()
		last = &Conn{}
		last.socket.nc = here
		if i < firstAtOnce+gone {
			_ = there.Close()
		}
		switch now, ushers := p.enter(last, "a", "1"); {
		case now:
			begun <- last
		case ushers != nil:
			lobby = ushers
		}
	}
	lobby.limit.SetLimit(1000)
	start := time.Now()
	p.usher(t.Context(), lobby, func(c *Conn) { begun <- c }, func(c *Conn) { ended <- c })
	close(begun)
	atOnce, there := 0, false
	for c := range begun {
		if c == last {
			there = true
		} else {
			atOnce++
		}
	}
	took := time.Since(start)
	// Connections whose client had gone by their turn ended one after another, at a pace.
	if atOnce+len(ended) != firstAtOnce+gone || len(ended) < gone-20 || !there {
		t.Errorf("%d began, %d of those that have gone did not; the last one, whose client is there, began: %v",
			atOnce, len(ended), there)
	}
	if least := time.Duration((gone - 2*goesOnce) / PerProcessor(goes) * float64(time.Second)); took < least/2 {
		t.Errorf("%d that have gone have ended after %v, want no less than %v", len(ended), took, least)
	}
}
