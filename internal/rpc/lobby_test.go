package rpc

import (
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/bubble"
)

// TestPaceInOverload checks that most connections begin soon, at the full pace, if three
// times as many come as may begin; that another process of their owner has its turns; and
// that those that were passed over begin when no more come.
func TestPaceInOverload(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		const rate, seconds = 100, 10
		var soon, late, others int
		var mu sync.Mutex // guards all of the above and below: the lobby begins some connections
		came := map[*Conn]time.Time{}
		other := map[*Conn]bool{}
		p := pace{rate: rate}
		begin := func(c *Conn) {
			mu.Lock()
			defer mu.Unlock()
			switch waited := time.Since(came[c]); {
			case other[c]:
				if others++; waited > lively {
					t.Errorf("a process that makes one connection a second waits %v", waited)
				}
			case waited <= lively:
				soon++
			default:
				late++
			}
		}
		ended := make(chan struct{})
		come := func(process string) {
			c := &Conn{}
			c.socket.nc = pipe()
			mu.Lock()
			came[c], other[c] = time.Now(), process == "2"
			mu.Unlock()
			switch now, l := p.enter(c, "a", process); {
			case now:
				begin(c)
			case l != nil:
				go func() { p.usher(t.Context(), l, begin, nil); ended <- struct{}{} }()
			}
		}
		for range firstAtOnce {
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

// TestPaceSweeps checks that connections that have waited long end if their clients have
// gone, even those that have left a request, and that they take no turns.
func TestPaceSweeps(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	const gone, there = 2 * sweepLooks, 20
	p := &pace{rate: 1e-3}
	begun, ended := map[*Conn]bool{}, map[*Conn]bool{}
	var lob *lobby
	left := map[*Conn]bool{}
	for i := range firstAtOnce + gone + there {
		client, err := net.Dial("unix", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		nc, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		c := &Conn{longest: 4096}
		c.socket.nc = nc
		if _, err := client.Write([]byte("\x00\x00\x00\x01x")); err != nil {
			t.Fatal(err)
		}
		if i >= firstAtOnce && i%(gone/there+1) != 0 {
			_ = client.Close()
			left[c] = true
		}
		if _, l := p.enter(c, "a", "1"); l != nil {
			lob = l
		}
	}
	for _, l := range lob.waits.lines { // virtual time has no sockets
		for i := range l.waits {
			l.waits[i].came = l.waits[i].came.Add(-2 * forsaken)
		}
	}
	lob.limit.SetLimit(2000)
	p.usher(t.Context(), lob, func(c *Conn) { begun[c] = true }, func(c *Conn) { ended[c] = true })
	for c := range ended {
		if !left[c] {
			t.Error("a connection whose client is there has ended")
		}
	}
	if n := len(begun) + len(ended); n != gone+there || len(ended) < gone/2 {
		t.Errorf("%d began and %d ended, want %d in all, and at least half of the %d that have gone ended",
			len(begun), len(ended), gone+there, len(left))
	}
}
