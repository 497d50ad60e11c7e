package session_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/doors"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// begun takes no note of its turn.
type begun struct{}

func (begun) TurnCame(time.Duration) {}

// busy has two other processes fill the host's window, and returns their work.
func busy(t *testing.T, h *doors.Host) (work []*quota.Work) {
	t.Helper()
	for _, process := range []string{"1", "2"} {
		a := h.Budget.Open("others", process)
		for {
			k := &quota.Work{}
			if !h.Work.Begin(k, a, 1, begun{}) {
				break
			}
			work = append(work, k)
		}
	}
	return work
}

// through is an origin to which writes go.
type through struct{}

func (through) Load(context.Context, []byte) (loader.Value, error) {
	return loader.Value{}, loader.ErrAbsent
}
func (through) Store(context.Context, []byte, loader.Value) error { return nil }
func (through) Delete(context.Context, []byte) error              { return nil }

// TestFloodWaitsForItsTurn checks that of a connection's requests that cannot be answered in place some wait for
// their turn, that no more are read, and that all are answered in the end. A neighbour's first one does not wait.
func TestFloodWaitsForItsTurn(t *testing.T) {
	cfg := onehost.Config{Namespaces: onehost.One(func(s *namespaces.Settings) {
		s.Origin, s.WriteThrough = loader.Custom{Source: through{}, Writer: through{}}, true
	})}
	doors.Virtually(t, cfg, func(t *testing.T, h *doors.Host) {
		app, neighbour := h.App(), h.User(7)
		busy(t, h)
		others := h.Work.Waiting()
		const many = 400
		set := func(i int) wire.Request {
			return wire.Request{
				Op: wire.OpSet, Key: fmt.Appendf(nil, "k%d", i), Value: []byte("v"), TTLMS: wire.TTLDefault,
				TimeoutMS: 60_000,
			}
		}
		go func() { // ends when all are read
			for i := range many {
				app.Begin(set(i))
			}
		}()
		synctest.Wait()
		if n := h.Work.Waiting() - others; n != 256 {
			t.Errorf("%d requests wait for their turn, want 256", n)
		}
		began := time.Now()
		if r := neighbour.Call(set(many)); r.Status != wire.OK || time.Since(began) > time.Millisecond {
			t.Errorf("the neighbour gets %s after %v", r.Status, time.Since(began))
		}
		for i := range many {
			if r := app.Receive(wire.OpSet); r.Status != wire.OK {
				t.Fatalf("answer %d: %s %s", i, r.Status, r.Message)
			}
		}
		began = time.Now()
		for i := range 2_000 { // those that have ended count no more
			app.Call(set(i))
		}
		if d := time.Since(began); d > 0 {
			t.Errorf("one after the other, they wait %v for their turns", d)
		}
		if r := app.Call(wire.Request{Op: wire.OpSlow}); !strings.Contains(string(r.Body), "turn") {
			t.Errorf("SLOW does not tell of turns: %s %q", r.Status, r.Body)
		}
	})
}

// TestTextWaitsForItsTurn checks that commands of memcached's protocol that cannot be answered in place take turns
// with the requests of others.
func TestTextWaitsForItsTurn(t *testing.T) {
	g := &gate{}
	cfg := onehost.Config{Namespaces: onehost.One(func(s *namespaces.Settings) { s.Origin = loader.Custom{Source: g} })}
	doors.Virtually(t, cfg, func(t *testing.T, h *doors.Host) {
		g.asked, g.open = make(chan struct{}, 16), make(chan struct{}) // of this bubble
		busy(t, h)
		a := h.Budget.Open(quota.App{User: quota.Nobody}.Names("")) // more of the client itself
		for h.Work.Begin(&quota.Work{}, a, 1, begun{}) {
		}
		others, c := h.Work.Waiting(), h.Text()
		c.Send("get b\r\n")
		if synctest.Wait(); h.Work.Waiting() != others+1 {
			t.Errorf("%d wait for their turn, want 1", h.Work.Waiting()-others)
		}
		close(g.open)
		if got := c.Line(); got != "END" {
			t.Errorf("%q, want END", got)
		}
	})
}

// TestAppsOfOtherHostsShareTheWindow checks that few requests are under way while apps of other hosts ask this one.
func TestAppsOfOtherHostsShareTheWindow(t *testing.T) {
	doors.Virtually(t, onehost.Config{}, func(t *testing.T, h *doors.Host) {
		peer, a := h.Peer(), h.Budget.Open("others", "1")
		h.Work.Begin(&quota.Work{}, a, 1, begun{})
		for _, by := range []uint64{0, 7} { // the host itself, and an app of it
			peer.Call(wire.Request{Op: wire.OpGet, Namespace: session.DefaultNamespace, Key: []byte("k"), By: by})
			n := 1
			for ; n < 2_000; n++ {
				if !h.Work.Begin(&quota.Work{}, a, 1, begun{}) {
					break
				}
			}
			if (n < 1024) != (by == 7) {
				t.Errorf("beside a request of %d: %d under way", by, n)
			}
			time.Sleep(100 * time.Millisecond) // none of them counts any more
		}
	})
}

// depth notes how many calls are under way on its goroutine when its turn comes.
type depth chan int

func (d depth) TurnCame(time.Duration) { d <- runtime.Callers(0, make([]uintptr, 1_000)) }

// TestTurnsWithoutMemory checks that requests whose turn comes when there is no memory for them are not all answered
// on the goroutine of the one that has ended.
func TestTurnsWithoutMemory(t *testing.T) {
	cfg := onehost.Config{Namespaces: onehost.One(func(s *namespaces.Settings) {
		s.Origin, s.WriteThrough = loader.Custom{Source: through{}, Writer: through{}}, true
	})}
	doors.Virtually(t, cfg, func(t *testing.T, h *doors.Host) {
		const conns, each = 8, 250
		app := quota.App{User: 7}
		var apps []*doors.Conn
		for range conns {
			apps = append(apps, h.User(app.User))
		}
		others := busy(t, h)
		for i, c := range apps {
			for j := range each {
				c.Begin(wire.Request{Op: wire.OpSet, Key: fmt.Appendf(nil, "%d %d", i, j), TTLMS: wire.TTLDefault})
			}
		}
		synctest.Wait()
		hog, last := h.Budget.Open("hog", "1"), make(depth, 1)
		hog.Force(quota.ForRequests, h.Budget.Size())
		a := h.Budget.Open(app.Names(""))
		h.Work.Begin(&quota.Work{}, a, 1, begun{})
		h.Work.Begin(&quota.Work{}, a, 1_000, last) // too much for what has one under way
		for _, k := range others {
			k.End()
		}
		if n := <-last; n > 30 {
			t.Errorf("the last one begins with %d calls under way", n)
		}
		hog.Give(quota.ForRequests, h.Budget.Size())
		if synctest.Wait(); h.Waiting.Load() != 0 {
			t.Errorf("%d requests wait", h.Waiting.Load())
		}
	})
}
