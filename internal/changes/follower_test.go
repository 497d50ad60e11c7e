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
		"since the last one": func(w *world) { w.f.counts.gap("another reason") },
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

// TestBrokenBeginsAnew checks that a stream that may leave out changes is ended, and that the next one
// begins anew for that reason, however many tries it takes; and that this happens at most once in 30 s.
func TestBrokenBeginsAnew(t *testing.T) {
	follows(t, func(w *world) {
		w.lead()
		w.server.do(func() { w.server.broken = "a table has changed" })
		sleep(brokenEvery + 50*time.Millisecond)
		w.is(Failed)
		if s := w.f.Stats(); s.Error != "hidden: a table has changed" {
			w.Errorf("error %q", s.Error)
		}
		for _, err := range []error{errors.New("refused"), loader.ErrFeed} { // before the reason was dealt with
			w.server.do(func() { w.server.broken, w.server.refuses = "", err })
			sleep(15 * time.Second)
			w.is(Failed)
		}
		w.host.lead(false) // the other host may not have heard of it
		synctest.Wait()
		w.is(Elsewhere)
		w.server.do(func() { w.server.refuses = nil })
		w.lead()
		if log := strings.Join(w.server.log, ", "); log != "stream, close, stream, flush pages, flush users, begun" ||
			w.server.began[0] != "a table has changed" {
			w.Errorf("%s, since %q", log, w.server.began)
		}
		began := time.Now()
		w.server.do(func() { w.server.broken = "another table has changed" })
		sleep(brokenEvery + time.Second)
		w.is(Starting)
		w.server.do(func() { w.server.broken = "" })
		sleep(gapPause - time.Since(began) - time.Millisecond)
		w.is(Starting)
		if n := w.f.Stats().Flushes; n != 2 {
			w.Errorf("%d flushes within 30 s, want 2", n)
		}
		sleep(2 * time.Millisecond)
		w.is(Following)
		w.server.last().ends <- errors.New("cut")
		sleep(time.Second)
		w.is(Following)
		want := []string{"a table has changed", "another table has changed"}
		if s := w.f.Stats(); s.Gaps != 2 || !slices.Equal(w.server.began, want) {
			w.Errorf("%d gaps, since %q, want %q", s.Gaps, w.server.began, want)
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
				sleep(brokenEvery + time.Second)
				w.is(Failed)
				w.server.do(func() { w.server.fails, w.server.refuses = nil, nil })
				sleep(mostPause)
				w.is(Following)
				if s := w.f.Stats(); s.Gaps != 1 || !strings.Contains(s.LastGap, "did not fit") {
					w.Errorf("%d gaps, since %q", s.Gaps, s.LastGap)
				}
			})
		})
	}
}

// TestPauses checks that a stream that fails is tried again, after pauses that grow up to 10 s. A
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
		want := []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 6400 * ms, mostPause, mostPause}
		if got := pauses(40 * time.Second); !slices.Equal(got, want) {
			w.Errorf("pauses %v, want %v", got, want)
		}
		w.is(Failed)
		if s := w.f.Stats(); s.Error != "hidden: refused" || s.Failures != 10 {
			w.Errorf("%d failures, %s; want 10", s.Failures, s.Error)
		}
		w.server.do(func() { w.server.refuses = nil })
		sleep(2 * mostPause)
		w.is(Following)
		if s := w.f.Stats(); s.Error != "" {
			w.Errorf("it follows, with error %s", s.Error)
		}
		w.server.do(func() { w.server.refuses = loader.ErrFeed })
		w.server.last().ends <- errors.New("cut")
		if got := pauses(25 * time.Second); len(got) != 2 || got[0] != mostPause || got[1] != mostPause {
			w.Errorf("pauses %v for a server that does not fit, want %v", got, mostPause)
		}
	})
}
