package changes

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/loader"
)

const testLag = 8 * time.Second

// certifies is follows with a bound of the lag.
func certifies(t *testing.T, f func(w *world)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		s := newServer()
		s.maxLag = testLag
		f(add(t, s))
	})
}

// newest returns how old the newest certificate is, and how many there are.
func (w *world) newest() (age time.Duration, n int) {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	if n = len(w.host.moments); n == 0 {
		return -1, 0
	}
	return time.Since(w.server.begun) - w.host.moments[n-1], n
}

// within checks whether there is a certificate of the last eighth of the lag.
func (w *world) within(what string, want bool) {
	w.Helper()
	if age, n := w.newest(); (n > 0 && age <= testLag/8) != want {
		w.Errorf("%s: the newest of %d certificates is %v old", what, n, age)
	}
}

// TestCertifies checks that moments are certified while all goes well, and more seldom without a bound.
func TestCertifies(t *testing.T) {
	certifies(t, func(w *world) {
		w.lead()
		w.within("at once", true)
		sleep(time.Minute)
		w.within("later", true)
		if _, n := w.newest(); n < 60 || n > 62 {
			t.Errorf("%d certificates in a minute, want one each second", n)
		}
		w.host.lead(false)
		sleep(time.Minute)
		w.within("elsewhere", false)
	})
	follows(t, func(w *world) {
		w.lead()
		sleep(time.Minute)
		if _, n := w.newest(); n < 12 || n > 13 {
			t.Errorf("%d certificates in a minute without a bound, want one in 5 s", n)
		}
	})
}

// TestCertifiesDeleted checks that no moment is certified while the keys of a transaction are not deleted
// that readers saw by then, and that one which no reader sees does not matter.
func TestCertifiesDeleted(t *testing.T) {
	certifies(t, func(w *world) {
		w.lead()
		unseen := w.server.sendHidden(changed("0"))
		sleep(time.Minute)
		w.within("one is not seen", true)
		end := w.host.hang("1")
		w.server.send(changed("1"))
		began := time.Since(w.server.begun)
		sleep(time.Minute)
		w.within("an owner hangs", false)
		for _, at := range w.host.moments {
			if at > began {
				t.Errorf("the moment %v is certified, and the row changed at %v", at, began)
			}
		}
		end()
		sleep(time.Second)
		w.within("it goes on", true)
		w.server.show(unseen)
		sleep(time.Second)
		w.within("all are seen", true)
	})
}

// TestCertifiesReceived checks that no moment is certified before the stream has come to where the log
// ended, and that the server is nudged meanwhile.
func TestCertifiesReceived(t *testing.T) {
	certifies(t, func(w *world) {
		w.lead()
		w.server.do(func() { w.server.logEnd = 1000 })
		sleep(time.Minute)
		w.within("the log is ahead", false)
		if w.server.nudged < 10 {
			t.Errorf("%d nudges", w.server.nudged)
		}
		w.server.send(&loader.Transaction{End: 999})
		sleep(time.Second)
		w.within("nearly", false)
		w.server.send(&loader.Transaction{End: 1000})
		sleep(time.Second)
		w.within("it has come", true)
	})
}

// TestCertifiesWhole checks that no moment is certified while changes may be missing.
func TestCertifiesWhole(t *testing.T) {
	certifies(t, func(w *world) {
		w.lead()
		sleep(time.Minute)
		end := w.host.hang("flush users")
		open := w.server.sendHidden(changed("1"))
		w.server.do(func() { w.server.broken = "the catalog has changed" })
		sleep(2 * time.Second)
		w.within("a flush hangs", false)
		end()
		sleep(10 * time.Second)
		w.within("a transaction is open", false)
		w.server.show(open)
		sleep(5 * time.Second)
		w.within("it has ended", true)
		w.server.do(func() { w.server.fails = errors.New("down") })
		sleep(10 * time.Second)
		w.within("the server is down", false)
	})
}

// TestOtherCheckpoint checks that a host which begins to follow flushes if the stream's checkpoint is another one
// than was certified last, perhaps by another host.
func TestOtherCheckpoint(t *testing.T) {
	certifies(t, func(w *world) {
		w.server.do(func() { w.server.at, w.server.heard = "one", "one" })
		w.lead()
		sleep(time.Minute)
		w.host.lead(false)
		sleep(time.Second)
		other := add(w.T, w.server)
		other.lead()
		if sleep(time.Second); len(other.host.flushed) != 0 {
			t.Errorf("the same checkpoint: flushed %v", other.host.flushed)
		}
		other.host.lead(false)
		sleep(time.Second)
		w.server.do(func() { w.server.at = "two" })
		w.lead()
		if sleep(time.Second); len(w.host.flushed) != 2 {
			t.Errorf("another checkpoint: flushed %v, want both namespaces", w.host.flushed)
		}
		w.within("after the flush", true)
	})
}

// TestCertifiesSoon checks that two changes of the catalog, one after the other, do not make hosts late.
func TestCertifiesSoon(t *testing.T) {
	certifies(t, func(w *world) {
		w.lead()
		sleep(time.Minute)
		for range 2 {
			w.server.do(func() { w.server.broken = "the catalog has changed" })
			sleep(1500 * time.Millisecond)
		}
		sleep(15 * time.Second)
		if age, _ := w.newest(); age >= testLag {
			t.Errorf("the newest certificate is %v old", age)
		}
	})
}

// TestForgets checks that the server forgets what is certified once all hosts have heard of it, and not before.
func TestForgets(t *testing.T) {
	certifies(t, func(w *world) {
		w.lead()
		forgotten := func(what, want string) {
			t.Helper()
			got := "nothing"
			w.server.do(func() {
				if n := len(w.server.forgotten); n > 0 {
					got = string(w.server.forgotten[n-1])
				}
			})
			if got != want {
				t.Errorf("%s: %s is forgotten, want %s", what, got, want)
			}
		}
		sleep(heardIn - time.Millisecond)
		forgotten("before others have heard of it", "nothing")
		sleep(time.Minute)
		forgotten("later", "s")
		end := w.host.hang("1")
		w.server.send(changed("1"))
		sleep(time.Minute)
		w.server.do(func() { w.server.at = "later" })
		sleep(time.Minute)
		forgotten("an owner hangs", "s")
		end()
		sleep(2 * testLag / 8)
		forgotten("it is certified", "s")
		sleep(heardIn)
		forgotten("all have heard of it", "later")
	})
}

// TestUnknown checks that a host flushes that follows a stream of which no host knows what was deleted before.
// With a bound of the lag no host has kept a value before the first certificate.
func TestUnknown(t *testing.T) {
	for _, maxLag := range []time.Duration{0, testLag} {
		bubble.Test(t, func(t *testing.T) {
			s := newServer()
			s.maxLag, s.heard = maxLag, ""
			w := add(t, s)
			open := s.sendHidden(changed("1"))
			w.lead()
			sleep(20 * time.Second)
			s.show(open)
			sleep(20 * time.Second)
			want := 4 // two namespaces, at once and when the transaction has ended
			if maxLag != 0 {
				want = 0
			}
			if n := len(w.host.flushed); n != want {
				t.Errorf("max_lag %v: flushed %v, want %d", maxLag, w.host.flushed, want)
			}
			if s.heard != "s" || len(s.began) > 0 {
				t.Errorf("max_lag %v: certified %q, and gaps: %q", maxLag, s.heard, s.began)
			}
		})
	}
}

// TestGapError checks that a stream has a gap after one that the server cannot go on with, whichever host
// makes it.
func TestGapError(t *testing.T) {
	certifies(t, func(w *world) {
		w.lead()
		sleep(time.Minute)
		w.server.last().ends <- fmt.Errorf("no publication: %w", loader.ErrGap)
		sleep(time.Minute)
		w.is(Following)
		if got := w.server.began; len(got) != 1 || got[0] != "the server is told of" {
			t.Errorf("the gap is %q", got)
		}
		if !slices.Contains(w.server.log, "give up") || len(w.host.flushed) != 2 {
			t.Errorf("done: %v, flushed %v", w.server.log, w.host.flushed)
		}
		w.within("afterwards", true)
	})
}
