package hosts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/peertest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// says waits until a host is ready or not, with some words.
func (v *vnode) says(ready bool, want string) {
	v.w.t.Helper()
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		words, is := v.s.readiness()
		if is == ready && strings.HasPrefix(words, want) {
			return
		}
		if time.Since(began) > 15*time.Second {
			v.w.t.Fatalf("%s says %q, %v, want %q, %v", v.name, words, is, want, ready)
		}
	}
}

// keeps checks that a host says the same for a while.
func (v *vnode) keeps(ready bool, want string, d time.Duration) {
	v.w.t.Helper()
	for began := time.Now(); time.Since(began) < d; time.Sleep(100 * time.Millisecond) {
		if words, is := v.s.readiness(); is != ready || !strings.HasPrefix(words, want) {
			v.w.t.Fatalf("after %v %s says %q, %v, want %q, %v", time.Since(began), v.name, words, is, want, ready)
		}
	}
}

// logged has a host log into what logged returns a count of.
func (v *vnode) logged() (count func(line string) int) {
	var mu sync.Mutex
	var text bytes.Buffer
	v.edit = func(c *Config) { c.Log = slog.New(slog.NewTextHandler(locked{&mu, &text}, nil)) }
	return func(line string) int {
		mu.Lock()
		defer mu.Unlock()
		return strings.Count(text.String(), line)
	}
}

// locked is a writer with a lock.
type locked struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// verdict returns why a check of the cluster by this host proves nothing.
func (v *vnode) verdict() string { return strings.Join(v.s.engine.Admin.NewCheck().Trouble(), "; ") }

const (
	aloneFor = "not ready: alone: no other host answers "
	aloneAt  = "not ready: alone: no host answers at the join addresses "
)

// TestVirtualIsolated checks what a host says of itself if other hosts should be there and none
// answers, and if that is in order.
func TestVirtualIsolated(t *testing.T) {
	testenv.Takes(t, 3*time.Second)
	var counts func(string) int // of the log of the first host
	lines := func(w *world, alone, again int) {
		w.t.Helper()
		if a, b := counts("this host is alone"), counts("another host answers"); a != alone || b != again {
			w.t.Errorf("the log says %d times that the host is alone, and %d times that it is no more: want %d and %d", a, b, alone, again)
		}
	}
	for name, run := range map[string]func(w *world, a, b *vnode){
		"killed": func(w *world, a, b *vnode) {
			b.kill()
			a.keeps(true, "serving", a.s.cfg.MaxStaleness) // the detection time is 1.5 times that
			a.says(false, aloneFor+"(n1); set alone_ok if it may be alone")
			if got := a.verdict(); !strings.Contains(got, "this host is alone: no other host answers (n1)") {
				w.t.Errorf("the verdict: %q", got)
			}
			time.Sleep(time.Second) // it takes over what the other one owned
			for i := range 10 {
				if _, err := a.s.Set(context.Background(), DefaultNamespace, fmt.Sprint(i), nil, cachesidecar.SetOptions{}); err != nil {
					w.t.Errorf("it does not go on serving: %v", err)
				}
			}
			b.start()
			a.says(true, "serving")
			b.says(true, "serving")
			if got := a.verdict(); got != "" {
				w.t.Errorf("the verdict: %q", got)
			}
		},
		"killed, and forgotten as told": func(w *world, a, b *vnode) {
			b.kill()
			a.says(false, aloneFor)
			a.forget(b.name)
			a.says(true, "serving")
			a.keeps(true, "serving", time.Minute)
		},
		"cut": func(w *world, a, b *vnode) {
			w.net.Isolate(b.ip)
			a.says(false, aloneFor+"(n1)")
			b.says(false, aloneFor+"(n0)")
			a.keeps(false, aloneFor, time.Minute)
			w.net.Heal()
			a.says(true, "serving")
			b.says(true, "serving")
		},
		"cut, and paused meanwhile": func(w *world, a, b *vnode) {
			w.net.Isolate(b.ip)
			a.says(false, aloneFor)
			a.clock.freeze()
			time.Sleep(time.Minute)
			a.clock.thaw()
			for range 200 { // it is never well
				if words, ready := a.s.readiness(); ready {
					w.t.Fatalf("after a pause: %q", words)
				}
				time.Sleep(100 * time.Millisecond)
			}
			a.says(false, aloneFor)
			lines(w, 1, 0)
			w.net.Heal()
			a.says(true, "serving")
			lines(w, 1, 1)
		},
		"stopped in order": func(w *world, a, b *vnode) {
			b.leave()
			a.keeps(true, "serving", time.Minute)
			if got := a.verdict(); got != "" {
				w.t.Errorf("the verdict: %q", got)
			}
			b.start()
			a.keeps(true, "serving", 10*time.Second)
			b.says(true, "serving")
		},
		"stopped in order, the other one restarted meanwhile": func(w *world, a, b *vnode) {
			b.leave()
			a.leave()
			a.start()
			a.says(false, aloneAt+"(10.0.0.2:7946); set alone_ok if it may be alone")
			b.start()
			a.says(true, "serving")
		},
		"drained": func(w *world, a, b *vnode) {
			if _, err := a.s.engine.Node.Drain(context.Background(), false); err != nil {
				w.t.Fatal(err)
			}
			a.says(true, "serving, not well: drained")
			a.clock.freeze()
			time.Sleep(10 * time.Second)
			a.clock.thaw() // it is out now
			a.keeps(true, "serving, not well: drained", 10*time.Second)
			b.kill()
			a.says(false, aloneFor)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				w := newWorld(t, 1, 2)
				counts = w.nodes[0].logged()
				w.startAll()
				w.agreed(15 * time.Second)
				lines(w, 0, 0)
				for _, v := range w.nodes {
					v.says(true, "serving")
				}
				run(w, w.nodes[0], w.nodes[1])
				w.endAll()
			})
		})
	}
}

// TestVirtualIsolatedOfThree checks that a host is not isolated while one other answers, that one
// which has left does not excuse one that is silent, and that a host which is isolated does not
// forget the others after an hour.
func TestVirtualIsolatedOfThree(t *testing.T) {
	testenv.Takes(t, 2*time.Second)
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 3)
		w.bound = 30 * time.Second // and fewer polls in an hour
		w.startAll()
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		w.agreed(5 * time.Minute)
		w.wants(5*time.Minute, "n1", cluster.StateIn, a)
		w.wants(5*time.Minute, "n2", cluster.StateIn, a)
		b.kill()
		w.wants(5*time.Minute, "n1", cluster.StateMissing, a)
		a.keeps(true, "serving", 5*time.Minute)
		c.leave()
		w.wants(time.Minute, "n2", cluster.StateLeft, a)
		time.Sleep(time.Minute)
		a.says(false, aloneFor+"(n1);")
		time.Sleep(70 * time.Minute)
		w.wants(0, "n1", cluster.StateMissing, a)
		w.wants(0, "n2", "", a)
		a.says(false, aloneFor+"(n1);")
		a.forget("n1")
		time.Sleep(time.Minute)
		a.says(true, "serving")
		w.endAll()
	})
}

// TestVirtualIsolatedAtStart checks the first host of a new cluster, a host with another key or
// another bound, and what alone_ok changes.
func TestVirtualIsolatedAtStart(t *testing.T) {
	testenv.Takes(t, 2*time.Second)
	for name, run := range map[string]func(w *world, a, b *vnode){
		"the first": func(w *world, a, b *vnode) {
			a.start()
			<-a.s.Ready()
			for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(100 * time.Millisecond) {
				if words, ready := a.s.readiness(); ready || !strings.HasPrefix(words, "not ready: not joined") && !strings.HasPrefix(words, aloneAt) {
					w.t.Fatalf("after %v: %q, %v", time.Since(began), words, ready)
				} else if why := a.s.engine.Node.Stats().Isolated; (why == "") != strings.HasPrefix(words, "not ready: not joined") {
					if again, _ := a.s.readiness(); again == words { // else it has changed in between
						w.t.Fatalf("after %v, %q: isolated: %q", time.Since(began), words, why)
					}
				}
			}
			a.says(false, aloneAt+"(10.0.0.2:7946)")
			if got := a.verdict(); !strings.Contains(got, "this host is alone: no host answers at the join addresses (10.0.0.2:7946)") {
				w.t.Errorf("the verdict: %q", got)
			}
			b.start() // is not held up by the first
			a.says(true, "serving")
			b.says(true, "serving")
		},
		"the first, that may be alone": func(w *world, a, b *vnode) {
			a.edit = func(c *Config) { c.AloneOK = true }
			a.start()
			a.says(true, "serving")
			if got := a.verdict(); got != "" {
				w.t.Errorf("the verdict: %q", got)
			}
			b.start()
			a.says(true, "serving")
		},
		"another key": func(w *world, a, b *vnode) {
			for _, v := range []*vnode{a, b} {
				w.keyed(v, "1")
				v.start()
			}
			b.says(true, "serving")
			b.leave()
			w.keyed(b, "2")
			b.start()
			b.says(false, aloneAt+"(10.0.0.1:7946)")
			a.keeps(true, "serving", time.Minute) // the other one has left
			b.kill()
			w.keyed(b, "1")
			b.start()
			b.says(true, "serving")
		},
		"another bound": func(w *world, a, b *vnode) {
			b.edit = func(c *Config) { c.MaxStaleness = 3 * time.Second }
			a.start()
			a.says(false, aloneAt)
			b.start()
			b.says(false, "not ready: not joined: ")
			a.keeps(false, aloneAt, time.Minute)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				w := newWorld(t, 1, 2)
				run(w, w.nodes[0], w.nodes[1])
				w.endAll()
			})
		})
	}
}

// keyed gives a host a key file.
func (w *world) keyed(v *vnode, digit string) {
	v.keyFile = fmt.Sprint(w.t.TempDir(), "/key")
	peertest.Replace(w.t, v.keyFile, peertest.KeyText(peertest.Seed, digit))
}

// TestVirtualIsolatedByName checks hosts that join by one name, which has the addresses of all
// hosts that there are: a cluster may have one host, and grow.
func TestVirtualIsolatedByName(t *testing.T) {
	testenv.Takes(t, time.Second)
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 2)
		a, b := w.nodes[0], w.nodes[1]
		var addresses atomic.Pointer[[]string]
		var seen atomic.Pointer[[]string] // by the first host
		for _, v := range w.nodes {
			v.edit = func(c *Config) { c.Join = []string{"cache.test:7946"} }
			v.resolve = func(context.Context, string) ([]string, error) {
				list := addresses.Load()
				if v == a {
					seen.Store(list)
				}
				if list != nil {
					return slices.Clone(*list), nil
				}
				return nil, errors.New("no such host")
			}
		}
		a.start()
		a.says(false, aloneAt+"(cache.test:7946)") // as if it were misspelt
		addresses.Store(&[]string{a.ip})
		a.says(true, "serving")
		a.keeps(true, "serving", time.Minute)
		addresses.Store(nil) // for a while names are not found
		a.keeps(true, "serving", time.Minute)
		addresses.Store(&[]string{a.ip, b.ip}) // the other one is about to start
		testenv.Eventually(t, "it has looked the name up", func() bool { return seen.Load() == addresses.Load() })
		a.keeps(true, "serving", a.s.cfg.MaxStaleness)
		a.says(false, aloneAt+"(10.0.0.2:7946)")
		b.start()
		a.says(true, "serving")
		b.says(true, "serving")
		b.leave()
		a.keeps(true, "serving", time.Minute)
		w.endAll()
	})
}
