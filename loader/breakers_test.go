package loader

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
)

// crowd is a guard before an origin that fails for the key "bad", and its callers.
type crowd struct {
	t *testing.T
	*Guard
	up bool // it fails for no key
}

func newCrowd(t *testing.T) *crowd {
	c := &crowd{t: t}
	c.Guard = newGuard(t, GuardConfig{Breaker: Breaker{Failures: 5, Open: 5 * time.Second}},
		func(ctx context.Context, key []byte) (Value, error) {
			if string(key) == "bad" && !c.up {
				return down(ctx, key)
			}
			return Value{}, nil
		})
	return c
}

// asks has a process, such as "uid 1/pid 2", ask for a key, and checks the error.
func (c *crowd) asks(caller, key string, want error) error {
	c.t.Helper()
	tenant, process, _ := strings.Cut(caller, "/")
	ctx := c.t.Context()
	if caller != "" {
		ctx = as(c.t, tenant, process)
	}
	_, err := c.Load(ctx, []byte(key))
	if !errors.Is(err, want) {
		c.t.Errorf("%q asks for %s: %v, want %v", caller, key, err, want)
	}
	return err
}

// is checks the state of the breaker, and how often it has opened.
func (c *crowd) is(state string, opened int64) {
	c.t.Helper()
	if n := c.Counts.Opened.Load(); c.Breaker() != state || n != opened {
		c.t.Errorf("the breaker is %s, opened %d times, want %s, %d", c.Breaker(), n, state, opened)
	}
}

// TestBreakerOfOne: the failures of one process open the breaker for it alone, whichever others ask.
func TestBreakerOfOne(t *testing.T) {
	for _, other := range []string{"uid 1/pid 2", "uid 2/pid 2", ""} {
		bubble.Test(t, func(t *testing.T) {
			c := newCrowd(t)
			c.asks("uid 3/pid 3", "good", nil)
			for range 5 {
				c.asks("uid 1/pid 1", "bad", errDown)
			}
			for range 10 {
				err := c.asks("uid 1/pid 1", "bad", ErrBusy)
				want := "its breaker is open for pid 1 of uid 1 after 5 failures in a row"
				if err == nil || !strings.HasSuffix(err.Error(), want) {
					t.Errorf("%v, want %s", err, want)
				}
				c.asks(other, "good", nil)
				c.is("closed", c.Counts.Opened.Load())
				time.Sleep(5*time.Second + 1)
				c.asks("uid 1/pid 1", "bad", errDown) // the probe
			}
			time.Sleep(5*time.Second + 1)
			c.asks("uid 1/pid 1", "good", nil)
			c.asks("uid 1/pid 1", "bad", errDown) // one in a row
			c.asks("uid 1/pid 1", "good", nil)
			c.is("closed", 11)
		})
	}
}

// TestBreakerOfOneAlone: while one process alone asks, its breaker is that of the origin, with the words for all.
func TestBreakerOfOneAlone(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCrowd(t)
		c.asks("uid 1/pid 1", "good", nil)
		c.asks("uid 2/pid 2", "good", nil)
		time.Sleep(lately)
		c.asks("", "good", nil) // by the host itself
		for range 5 {
			c.asks("uid 1/pid 1", "bad", errDown)
		}
		c.is("open", 1)
		if err := c.asks("uid 1/pid 1", "good", ErrBusy); !strings.HasSuffix(err.Error(), ": its breaker is open after 5 failures") {
			t.Error(err)
		}
		time.Sleep(2 * lately)
		c.is("half-open", 1)
		c.asks("uid 1/pid 1", "good", nil)
		c.is("closed", 1)
	})
}

// TestOpenBreakerIsKept: a process with an open breaker is not forgotten before its time.
func TestOpenBreakerIsKept(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCrowd(t)
		c.Config.Breaker.Open = 10 * lately
		for range 5 {
			c.asks("uid 1/pid 1", "bad", errDown)
		}
		time.Sleep(2 * lately)
		c.asks("uid 2/pid 2", "good", nil)
		c.asks("uid 1/pid 1", "bad", ErrBusy)
	})
}

// TestBreakerOfTenant: failures in a row of two processes open the breaker for their tenant, new processes included, and
// for no other one.
func TestBreakerOfTenant(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCrowd(t)
		for i := range 5 {
			c.asks("uid 2/pid 1", "good", nil)
			c.is("closed", 0)
			c.asks(fmt.Sprint("uid 1/pid ", i), "bad", errDown)
		}
		for i := range 10 {
			err := c.asks(fmt.Sprint("uid 1/pid ", 10+i), "good", ErrBusy)
			if want := "its breaker is open for uid 1 after 5 failures in a row"; !strings.HasSuffix(err.Error(), want) {
				t.Errorf("%v, want %s", err, want)
			}
			c.asks("uid 2/pid 1", "good", nil)
			c.is("closed", int64(1+i))
			time.Sleep(5*time.Second + 1)
			c.asks(fmt.Sprint("uid 1/pid ", 20+i), "bad", errDown) // the probe
		}
		time.Sleep(5*time.Second + 1)
		c.asks("uid 1/pid 40", "good", nil)
		c.asks("uid 1/pid 41", "good", nil)
	})
}

// TestBreakerOfAll: failures in a row of two tenants, the host itself included, open the breaker for all. It is half-open
// for all after its time.
func TestBreakerOfAll(t *testing.T) {
	for _, second := range []string{"uid 2/pid 2", ""} {
		bubble.Test(t, func(t *testing.T) {
			c := newCrowd(t)
			c.asks("uid 3/pid 3", "good", nil)
			for range 4 {
				c.asks("uid 1/pid 1", "bad", errDown)
			}
			c.is("closed", 0)
			c.asks(second, "bad", errDown)
			c.is("open", 1)
			if err := c.asks("uid 3/pid 3", "good", ErrBusy); !strings.HasSuffix(err.Error(), ": its breaker is open after 5 failures") {
				t.Error(err)
			}
			time.Sleep(5*time.Second + 1)
			c.is("half-open", 1)
			c.asks("uid 3/pid 3", "good", nil)
			c.is("closed", 1)
		})
	}
}

// TestBreakerIsNotKeptOpen: when the breaker of all is half-open, a tenant whose keys fail opens it again only until its own
// breaker opens, with one process or a new one each time.
func TestBreakerIsNotKeptOpen(t *testing.T) {
	for name, process := range map[string]func(i int) string{
		"one process":   func(int) string { return "uid 1/pid 1" },
		"new processes": func(i int) string { return fmt.Sprint("uid 1/pid ", i) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				c := newCrowd(t)
				for i := range 5 {
					c.asks([]string{"uid 1/pid 0", "uid 2/pid 2"}[i%2], "bad", errDown)
				}
				served := 0
				for i := range 30 {
					time.Sleep(5*time.Second + 1)
					_, _ = c.Load(as(t, "uid 1", strings.TrimPrefix(process(i), "uid 1/")), []byte("bad"))
					_, err := c.Load(as(t, "uid 2", "pid 2"), []byte("good"))
					if err == nil {
						served++
					} else if i > 5 {
						t.Errorf("in round %d: %v", i, err)
					}
				}
				if served < 25 || c.Breaker() != "closed" {
					t.Errorf("%d of 30 were served, the breaker is %s", served, c.Breaker())
				}
			})
		})
	}
}

// TestOriginDownForAll: an origin that is down is asked once by each tenant in the open time, although many processes
// ask, and all are served soon after it is up.
func TestOriginDownForAll(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCrowd(t)
		for second := range 60 {
			if state := c.Breaker(); second > 0 && state == "closed" {
				t.Errorf("after %d s the breaker is closed", second)
			}
			for i := range 40 {
				_, _ = c.Load(as(t, fmt.Sprint("uid ", i%4), fmt.Sprint("pid ", i)), []byte("bad"))
			}
			time.Sleep(time.Second)
		}
		if n := c.Counts.Calls.Load(); n > 5+4*60/5 {
			t.Errorf("%d calls", n)
		}
		c.up = true
		time.Sleep(5*time.Second + 1)
		for i := range 40 {
			c.asks(fmt.Sprintf("uid %d/pid %d", i%4, i), "bad", nil)
		}
		c.is("closed", c.Counts.Opened.Load())
	})
}
