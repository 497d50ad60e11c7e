package server

import (
	"bytes"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/polled"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestSlowTakersGive checks that connections that take their answers steadily, but use
// most of the memory all the time, give it to others.
func TestSlowTakersGive(t *testing.T) {
	for _, over := range []string{"socket", "TLS"} {
		t.Run(over, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				const mb = 1 << 20
				budget := quota.NewBudget(16 * mb)
				var conns []*Conn
				var all sync.WaitGroup
				for range 4 {
					nc, c, _, ended := servePolled(t, &echoHandler{echo: newEcho()}, Limits{Budget: budget}, over)
					if _, err := nc.Write(getFrame(1, "big 3400000")); err != nil {
						t.Fatal(err)
					}
					conns = append(conns, c)
					all.Go(func() {
						for polled.ReadSlowly(nc, 50<<10, 50<<10, 900*time.Millisecond) == nil {
						}
						_ = nc.Close()
						<-ended
					})
				}
				time.Sleep(5 * time.Second)
				if n := budget.Stats().Total(); n < 13*mb {
					t.Fatalf("%d bytes are held", n)
				}
				other := budget.Open("uid 1", "")
				got := 0
				for range 30 { // three seconds
					if other.Take(quota.ForFrames, mb/4) == nil {
						got++
					}
					time.Sleep(100 * time.Millisecond)
				}
				if got < 28 {
					t.Errorf("a neighbour got %d quarters of a MiB, half of 7/8 are 28", got)
				}
				overBudget := 0
				for _, c := range conns {
					if c.overBudget.Load() {
						overBudget++
					}
					c.Kill()
				}
				all.Wait()
				if st := budget.Stats(); overBudget == 0 || overBudget == 4 || st.Taken != int64(overBudget) {
					t.Errorf("%d connections of 4 were ended, %d had to give", overBudget, st.Taken)
				}
				if n := budget.Stats().Total() - other.Used(); n != 0 {
					t.Errorf("%d bytes are held at the end", n)
				}
			})
		})
	}
}

// TestFastTakerKeeps checks that a connection that takes all of its answers within a
// second keeps its memory, although some answers always wait.
func TestFastTakerKeeps(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		const size, atOnce = 100_000, 6
		nc, c, _, ended := servePolled(t, values{}, Limits{}, "")
		ask := func() {
			for range atOnce {
				if _, err := nc.Write(getFrame(1, "100000")); err != nil {
					t.Fatal(err)
				}
			}
		}
		ask()
		ask()
		waited := 0
		for range 100 {
			testenv.Must(t, polled.ReadSlowly(nc, atOnce*size, atOnce*size, 100*time.Millisecond))
			ask()
			synctest.Wait()
			c.outbox.mu.Lock()
			if !c.outbox.queue.empty() {
				waited++
			}
			c.outbox.mu.Unlock()
			if n := c.GiveMemory(); n != 0 {
				t.Fatalf("it gave %d bytes", n)
			}
		}
		if waited != 100 {
			t.Errorf("answers waited %d times of 100", waited)
		}
		time.Sleep(stuckAfter)
		if c.GiveMemory() == 0 {
			t.Error("it gives nothing when it has taken nothing for a second")
		}
		c.Kill()
		_, _ = io.Copy(io.Discard, nc)
		<-ended
		_ = nc.Close()
	})
}

// TestManySlowAnswersGive checks that a connection gives memory if each answer is taken
// within a second but the answers behind it wait longer.
func TestManySlowAnswersGive(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		nc, c, _, ended := servePolled(t, values{}, Limits{}, "")
		if _, err := nc.Write(bytes.Repeat(getFrame(1, "40000"), 300)); err != nil {
			t.Fatal(err)
		}
		testenv.Must(t, polled.ReadSlowly(nc, 250<<10, 50<<10, 900*time.Millisecond))
		if n := c.GiveMemory(); n < 256<<10 {
			t.Errorf("it gives %d bytes", n)
		}
		c.Kill()
		_, _ = io.Copy(io.Discard, nc)
		<-ended
		_ = nc.Close()
	})
}
