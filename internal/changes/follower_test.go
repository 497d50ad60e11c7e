package changes

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/loader"
)

// TestOneHostFollows checks that the leading host alone has a stream, that it ends the stream when it
// does not lead any more, and that the next host goes on with what was not confirmed.
func TestOneHostFollows(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := newServer()
		a, b := add(t, s), add(t, s)
		sleep(time.Hour)
		a.is(Elsewhere)
		b.is(Elsewhere)
		if len(s.streams) != 0 {
			t.Fatalf("%d streams without a leader", len(s.streams))
		}
		a.lead()
		b.is(Elsewhere)
		one := s.send(changed("1"))
		synctest.Wait()
		a.has("a leads", one, "1")
		end := a.host.hang("2")
		defer end()
		s.send(changed("2"))
		synctest.Wait()
		if n := a.f.Stats().UnderWay; n != 1 {
			t.Errorf("%d transactions under way, want 1", n)
		}
		a.host.lead(false)
		synctest.Wait()
		a.is(Elsewhere)
		if got := a.f.Stats(); got.UnderWay != 0 || got.LagMS != 0 || got.KeptBytes != 0 || got.Error != "" {
			t.Errorf("it follows nothing: %+v", got)
		}
		a.has("a does not lead any more", one, "1")
		b.lead()
		two := s.sent[1]
		b.has("b leads", two, "2")
		for range 3 { // the host asks again whenever something has changed
			b.host.lead(true)
			synctest.Wait()
		}
		if len(s.streams) != 2 || !s.streams[0].closed || s.streams[1].closed {
			t.Errorf("%d streams, want a closed one and another", len(s.streams))
		}
	})
}

// TestBeginsAnew checks the order of what is done about a stream that leaves out earlier changes:
// readers see them, all namespaces are flushed, the stream has begun, and then it is followed.
func TestBeginsAnew(t *testing.T) {
	follows(t, func(w *world) {
		w.server.lost, w.server.past = "there was no slot", false
		w.host.takes = time.Second
		w.host.lead(true)
		sleep(time.Minute)
		w.is(Starting)
		w.server.send(changed("1")) // after the slot was made
		w.server.do(func() {
			if log := strings.Join(w.server.log, ", "); log != "stream" {
				w.Errorf("before readers see what is not in the stream: %s", log)
			}
			w.server.past = true
		})
		sleep(1500 * time.Millisecond)
		w.is(Starting)
		w.has("a flush is under way", nil)
		sleep(5 * time.Second)
		w.is(Following)
		w.has("afterwards", w.server.sent[0], "1")
		if log := strings.Join(w.server.log, ", "); log != "stream, flush pages, flush users, begun" {
			w.Error(log)
		}
		if s := w.f.Stats(); s.Gaps != 1 || s.LastGap != "there was no slot" || s.Flushes != 2 || s.Deletions != 1 {
			w.Errorf("%+v", s)
		}
	})
}

// TestLosesTheLead checks that a stream that leaves out earlier changes does not count as begun if the
// host stops leading before, in each wait of the beginning.
func TestLosesTheLead(t *testing.T) {
	for name, wait := range map[string]func(*world){
		"for readers":        func(w *world) { w.server.past = false },
		"for a flush":        func(w *world) { w.Cleanup(w.host.hang("flush users")) },
		"since the last one": func(w *world) { w.f.counts.noteGap("another reason") },
	} {
		t.Run(name, func(t *testing.T) {
			follows(t, func(w *world) {
				w.server.lost = "there was no slot"
				wait(w)
				w.host.lead(true)
				sleep(time.Second)
				w.is(Starting)
				w.host.lead(false)
				synctest.Wait()
				w.is(Elsewhere)
				if n := len(w.server.log); slices.Contains(w.server.log, "begun") || w.server.log[n-1] != "close" {
					w.Errorf("%q", w.server.log)
				}
				if n := w.f.Stats().Failures; n != 0 {
					w.Errorf("%d failures", n)
				}
			})
		})
	}
}

// TestBrokenFlushes checks that the namespaces are flushed if a stream may leave out changes, at once
// and when the transactions have ended that were open, at most once in 30 s; that it goes on meanwhile;
// and that the next stream has a gap if it ends before that.
func TestBrokenFlushes(t *testing.T) {
	follows(t, func(w *world) {
		flushes := func(what string, want int64) {
			w.Helper()
			w.is(Following)
			if n := w.f.Stats().Flushes; n != want {
				w.Errorf("%s: %d flushes, want %d", what, n, want)
			}
		}
		w.lead()
		open := w.server.commit(changed("open"), true)
		w.server.do(func() { w.server.broken = "a table has changed" })
		sleep(checkEvery + 50*time.Millisecond)
		flushes("at once", 2)
		sleep(time.Minute)
		flushes("while a transaction is open", 2)
		later := w.server.send(changed("later"))
		synctest.Wait()
		if w.host.deleted["users later"] != 1 {
			w.Errorf("%v: the stream does not go on", w.host.deleted)
		}
		w.server.show(open, later)
		sleep(checkEvery + time.Second)
		flushes("after it has ended", 4)
		w.server.do(func() { w.server.broken = "another table has changed" })
		sleep(checkEvery + time.Second)
		flushes("a minute later", 6)
		sleep(checkEvery)
		flushes("once more", 8)
		w.server.do(func() { w.server.broken = "a third table has changed" })
		sleep(checkEvery)
		flushes("within 30 s", 8)
		w.server.last().ends <- errors.New("cut")
		sleep(gapPause)
		w.is(Following)
		if log := strings.Join(w.server.log, ", "); !strings.HasSuffix(log, "close, stream, flush pages, flush users, begun") ||
			!slices.Equal(w.server.began, []loader.Gap{"a third table has changed"}) {
			w.Errorf("%s, since %q", log, w.server.began)
		}
	})
}

// TestReasonIsKept checks that a gap lasts until a stream has closed it, however many tries
// that takes, and whichever host leads meanwhile.
func TestReasonIsKept(t *testing.T) {
	follows(t, func(w *world) {
		w.lead()
		w.server.last().ends <- fmt.Errorf("%w: no table", loader.ErrFeed)
		for _, err := range []error{errors.New("refused"), loader.ErrFeed} {
			w.server.do(func() { w.server.refuses = err })
			sleep(15 * time.Second)
			w.is(Failed)
		}
		w.host.lead(false) // the other host may not have heard of it
		synctest.Wait()
		w.is(Elsewhere)
		w.server.do(func() { w.server.refuses = nil })
		w.lead()
		if log := strings.Join(w.server.log, ", "); log != "stream, give up, close, stream, flush pages, flush users, begun" {
			w.Errorf("%s, since %q", log, w.server.began)
		}
	})
}

// TestReasonIsHandedOver checks that the next host has a gap if this one stops leading before it has
// dealt with a reason to do so.
func TestReasonIsHandedOver(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := newServer()
		a, b := add(t, s), add(t, s)
		a.lead()
		end := a.host.hang("flush users")
		defer end()
		s.do(func() { s.broken = "a table has changed" })
		sleep(checkEvery + time.Second)
		a.is(Following)
		a.host.lead(false)
		synctest.Wait()
		b.lead()
		if log := strings.Join(s.log, ", "); !strings.HasSuffix(log, "give up, close, stream, flush pages, flush users, begun") {
			t.Error(log)
		}
	})
}

// TestSilentStreamIsLate checks that a stream which does not bring what the server's log has is nudged,
// and is late if that does not help.
func TestSilentStreamIsLate(t *testing.T) {
	follows(t, func(w *world) {
		w.lead()
		w.server.do(func() { w.server.logEnd = 1000 })
		sleep(2*checkEvery + time.Second)
		w.server.do(func() {
			if w.server.nudged == 0 {
				w.Error("it was not nudged")
			}
		})
		sleep(time.Minute)
		if lag := w.f.Stats().LagMS; lag < 60_000 || lag > 70_000 {
			w.Errorf("it is %d ms late, want a minute", lag)
		}
		w.server.send(&loader.Transaction{End: 1000})
		synctest.Wait()
		if lag := w.f.Stats().LagMS; lag != 0 {
			w.Errorf("after all has come it is %d ms late", lag)
		}
	})
}

// TestSlowStart checks that a beginning which waits tells so.
func TestSlowStart(t *testing.T) {
	follows(t, func(w *world) {
		w.server.lost, w.server.past = "there was no slot", false
		w.host.lead(true)
		sleep(time.Minute)
		w.is(Starting)
		if why := w.f.Stats().Error; !strings.Contains(why, "it has been starting for 1m0s") {
			w.Errorf("a beginning that takes a minute: %q", why)
		}
	})
}

// TestMisfitBeginsAnew checks that changes may be missing after a time in which the server did not fit
// the settings: a table was out of the publication, for example.
func TestMisfitBeginsAnew(t *testing.T) {
	for name, misfit := range map[string]func(*world){
		"of a stream": func(w *world) {
			w.server.do(func() { w.server.fails = fmt.Errorf("%w: no table", loader.ErrFeed) })
		},
		"in a conversation": func(w *world) { w.server.last().ends <- fmt.Errorf("%w: no column", loader.ErrFeed) },
		"at the beginning": func(w *world) {
			w.server.do(func() { w.server.refuses = fmt.Errorf("%w: no table", loader.ErrFeed) })
			w.server.last().ends <- errors.New("cut")
		},
	} {
		t.Run(name, func(t *testing.T) {
			follows(t, func(w *world) {
				w.lead()
				misfit(w)
				sleep(checkEvery + time.Second)
				w.is(Failed)
				w.server.do(func() { w.server.fails, w.server.refuses = nil, nil })
				sleep(unfitPause)
				w.is(Following)
				if s := w.f.Stats(); s.Gaps != 1 || !strings.Contains(s.LastGap, "did not fit") {
					w.Errorf("%d gaps, since %q", s.Gaps, s.LastGap)
				}
			})
		})
	}
}

// TestPauses checks that a stream that fails is tried again, after pauses that grow up to 2 s. A
// server that does not fit the settings is asked every 10 s. After a good time the pause is short.
func TestPauses(t *testing.T) {
	follows(t, func(w *world) {
		w.server.refuses = errors.New("refused")
		pauses := func(after time.Duration) (list []time.Duration) {
			w.server.do(func() { w.server.asked = nil })
			sleep(after)
			w.server.mu.Lock()
			defer w.server.mu.Unlock()
			for i, at := range w.server.asked[1:] {
				list = append(list, at.Sub(w.server.asked[i]))
			}
			return list
		}
		w.host.lead(true)
		ms := time.Millisecond
		want := []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, mostPause, mostPause}
		if got := pauses(8 * time.Second); !slices.Equal(got, want) {
			w.Errorf("pauses %v, want %v", got, want)
		}
		w.is(Failed)
		if s := w.f.Stats(); !strings.HasPrefix(s.Error, "its server is told of: mend it; ") || strings.Contains(s.Error, "refused") || s.Failures != 8 {
			w.Errorf("%d failures, %s; want 8", s.Failures, s.Error)
		}
		w.server.do(func() { w.server.refuses = nil })
		sleep(2 * mostPause)
		w.is(Following)
		if s := w.f.Stats(); s.Error != "" {
			w.Errorf("it follows, with error %s", s.Error)
		}
		w.server.do(func() { w.server.refuses = loader.ErrFeed })
		w.server.last().ends <- errors.New("cut")
		if got := pauses(25 * time.Second); len(got) != 2 || got[0] != unfitPause || got[1] != unfitPause {
			w.Errorf("pauses %v for a server that does not fit, want %v", got, unfitPause)
		}
	})
}
