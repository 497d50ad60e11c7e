package changes

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/loader"
)

// TestDeletedOnceSeen checks that a transaction is deleted when readers see it and not before, and
// that one that must wait holds no later one back.
func TestDeletedOnceSeen(t *testing.T) {
	follows(t, func(w *world) {
		w.lead()
		one := w.server.sendHidden(changed("1"))
		two := w.server.send(changed("2"))
		three := w.server.sendHidden(changed("3"))
		sleep(time.Minute)
		w.has("one of three is visible", nil, "2")
		w.server.show(three)
		sleep(seenMost)
		w.has("two are", nil, "2", "3")
		w.server.show(one)
		sleep(seenMost)
		w.has("all are", three, "1", "2", "3")
		for key, n := range w.host.deleted {
			if n != 1 {
				w.Errorf("%s was deleted %d times", key, n)
			}
		}
		if two.End >= three.End {
			w.Error("their order")
		}
	})
}

// TestLooks checks how often readers are asked: for each transaction that has come at once, then in
// pauses of 1 to 50 ms while it waits, and hardly ever while there is none.
func TestLooks(t *testing.T) {
	follows(t, func(w *world) {
		w.lead()
		views := func(after time.Duration) int {
			m, before := w.server.last(), 0
			w.server.do(func() { before = m.views })
			sleep(after)
			w.server.mu.Lock()
			defer w.server.mu.Unlock()
			return m.views - before
		}
		if n := views(time.Minute); n > 12 {
			w.Errorf("%d questions in a minute without a transaction", n)
		}
		one := w.server.sendHidden(changed("1"))
		if n := views(10 * time.Millisecond); n < 3 || n > 5 {
			w.Errorf("%d questions in the first 10 ms, want 1 and those after 1, 3 and 7 ms", n)
		}
		if n := views(time.Second); n < 19 || n > 24 {
			w.Errorf("%d questions in a second, want one each 50 ms", n)
		}
		w.server.send(changed("2"))
		if n := views(0); n != 1 {
			w.Errorf("%d questions for another one, want 1", n)
		}
		w.has("another one", nil, "2")
		sleep(time.Second)
		two := w.server.sendHidden(changed("3"))
		if n := views(10 * time.Millisecond); n < 3 || n > 5 {
			w.Errorf("%d questions in the first 10 ms of one more, want 4", n)
		}
		w.server.show(one, two)
		sleep(seenMost)
		if n := views(time.Minute); n > 12 {
			w.Errorf("%d questions in a minute after the last", n)
		}
	})
}

// TestConfirmedInOrder checks that nothing is confirmed beyond a transaction that is not deleted as a
// whole, since an owner hangs, while later ones are deleted and empty ones come. A message of the
// stream may have an earlier position than the commit before it.
func TestConfirmedInOrder(t *testing.T) {
	follows(t, func(w *world) {
		w.lead()
		first := w.server.send(&loader.Transaction{})
		sleep(5 * time.Millisecond)
		w.has("an empty one", first)
		end := w.host.hang("1")
		two := changed("1")
		two.Delete("pages", "2")
		w.server.send(two)
		sleep(5 * time.Millisecond)
		for range 3 {
			w.server.send(&loader.Transaction{})
		}
		w.server.send(changed("3"))
		last := w.server.send(&loader.Transaction{})
		w.server.send(&loader.Transaction{End: first.End})
		sleep(time.Minute)
		w.has("one hangs", first, "2", "3")
		if s := w.f.Stats(); s.UnderWay == 0 || s.LagMS < 60_000 || s.LagMS > 60_100 {
			w.Errorf("%d under way, lag %d ms, want 60000", s.UnderWay, s.LagMS)
		}
		end()
		sleep(5 * time.Millisecond)
		w.has("it has ended", last, "1", "2", "3")
		if s := w.f.Stats(); s.UnderWay != 0 || s.LagMS != 0 {
			w.Errorf("%d under way, lag %d ms", s.UnderWay, s.LagMS)
		}
	})
}

// TestNotConfirmedAtItsEnd checks that a host which stops leading confirms nothing that is not deleted,
// also while it waits for room for more requests.
func TestNotConfirmedAtItsEnd(t *testing.T) {
	follows(t, func(w *world) {
		w.host.takes = time.Hour
		for i := range 20 { // each time the server sends all again
			w.lead()
			if i == 0 {
				w.server.send(changed("1"))
				sleep(5 * time.Millisecond)
				w.server.send(numbered("users", 0, 2*maxDeletions*keysEach))
			}
			sleep(time.Second)
			w.host.lead(false)
			sleep(5 * time.Millisecond)
			w.is(Elsewhere)
			w.has("at the end", nil)
		}
	})
}

// TestRoundsArePaced checks that the first transaction is deleted at once, and that those which follow
// closely go together: each round asks the server.
func TestRoundsArePaced(t *testing.T) {
	follows(t, func(w *world) {
		w.lead()
		sleep(time.Second)
		views := func() (n int) {
			w.server.do(func() { n = w.server.streams[0].views })
			return n
		}
		before := views()
		first := w.server.send(changed("first"))
		synctest.Wait()
		w.has("at once", first, "first")
		for i := range 100 {
			w.server.send(changed(fmt.Sprint(i)))
			sleep(100 * time.Microsecond)
		}
		sleep(2 * roundEvery)
		if n := views() - before; n < 5 || n > 7 || len(w.host.deleted) != 101 {
			w.Errorf("%d rounds in 10 ms, and %d keys deleted; want 6 and 101", n, len(w.host.deleted))
		}
	})
}

// TestBatches checks that many keys are deleted in requests of up to 64, up to 64 at a time, and each
// key once; and that the server goes on hearing of the host while there is no room for more.
func TestBatches(t *testing.T) {
	follows(t, func(w *world) {
		w.host.takes = time.Minute
		w.lead()
		const sent, each = 8 * maxReceived, 3
		for i := range sent {
			w.server.send(numbered("users", each*i, each*i+each))
			if i%maxReceived == 0 { // more keys in one round are a flush
				sleep(5 * time.Millisecond)
			}
		}
		sleep(30 * time.Second)
		m := w.server.last()
		w.server.do(func() {
			if w.host.now != maxDeletions || m.next > 4*maxReceived {
				w.Errorf("%d requests, and %d transactions taken", w.host.now, m.next)
			}
			if m.living < 28 {
				w.Errorf("the server was told %d times in 30 s that the host lives", m.living)
			}
		})
		sleep(time.Hour)
		w.server.mu.Lock()
		defer w.server.mu.Unlock()
		keys := 0
		for _, n := range w.host.batches {
			if keys += n; n > keysEach {
				w.Errorf("a request has %d keys", n)
			}
		}
		if keys != each*sent || len(w.host.deleted) != keys || w.host.most != maxDeletions ||
			len(w.host.batches) > keys/keysEach+2*maxDeletions {
			w.Errorf("%d keys of %d in %d requests, %d at a time", keys, each*sent, len(w.host.batches), w.host.most)
		}
		if want := w.server.sent[sent-1].End; w.server.confirmed != want {
			w.Errorf("confirmed up to %d, want %d", w.server.confirmed, want)
		}
	})
}

// TestManyKeysFlush checks that more than 10,000 keys of a namespace in a round are one flush, and that
// other namespaces keep their values.
func TestManyKeysFlush(t *testing.T) {
	for _, tc := range []struct{ keys, deleted, flushes int }{
		{loader.MaxChanged, loader.MaxChanged, 0}, {loader.MaxChanged + 1, 0, 1},
	} {
		t.Run(fmt.Sprint(tc.keys), func(t *testing.T) {
			follows(t, func(w *world) {
				w.lead()
				var list []*loader.Transaction
				for from := 0; from < tc.keys; from += 1000 {
					list = append(list, w.server.sendHidden(numbered("users", from, min(from+1000, tc.keys))))
				}
				list = append(list, w.server.sendHidden(numbered("pages", 0, 5)))
				sleep(5 * time.Millisecond)
				w.server.show(list...) // all in one round
				sleep(seenMost)
				if s := w.f.Stats(); int(s.Flushes) != tc.flushes || int(s.Deletions) != tc.deleted+5 || int(s.Rows) != len(list) {
					w.Errorf("%d flushes, %d keys, %d rows", s.Flushes, s.Deletions, s.Rows)
				}
				if len(w.host.flushed) != tc.flushes || tc.flushes > 0 && w.host.flushed[0] != "users" {
					w.Errorf("flushed: %q", w.host.flushed)
				}
				if w.server.confirmed != list[len(list)-1].End {
					w.Errorf("confirmed up to %d", w.server.confirmed)
				}
			})
		})
	}
}

// TestWaitingKeysFlush checks that more than 8 MiB of keys of transactions that no reader sees become
// flushes of their namespaces, when readers see them. Keys that are on their way do not count.
func TestWaitingKeysFlush(t *testing.T) {
	follows(t, func(w *world) {
		w.lead()
		size := numbered("users", 10_000, 15_000).Size
		fit := maxWaiting / size
		for range fit + 1 {
			w.server.send(numbered("others", 10_000, 15_000))
			sleep(5 * time.Millisecond)
		}
		before := w.f.Stats()
		if n := int(before.Deletions); before.Flushes != 0 || n != 5000*(fit+1) {
			w.Errorf("%d flushes and %d keys without a wait", before.Flushes, n)
		}
		w.server.last().taken = nil
		var list []*loader.Transaction
		for i := range fit + 1 {
			if i == fit {
				for _, p := range w.server.last().taken {
					if p.Size != size {
						w.Fatalf("a transaction has %d bytes, with %d of %d waiting", p.Size, size*i, maxWaiting)
					}
				}
			}
			list = append(list, w.server.sendHidden(numbered([]string{"users", "pages"}[i%2], 10_000, 15_000)))
			sleep(5 * time.Millisecond)
		}
		sleep(seenMost)
		taken := &w.server.last().taken
		for _, p := range *taken {
			if p.Size > size/100 {
				w.Errorf("a transaction has %d bytes", p.Size)
			}
		}
		if s := w.f.Stats(); s.Flushes != 0 || s.Deletions != before.Deletions {
			w.Errorf("before readers see them: %+v", s)
		}
		later := w.server.sendHidden(numbered("messages", 0, 3))
		sleep(5 * time.Millisecond)
		if n := len((*taken)[len(list)].Changed["messages"].Keys); n != 3 {
			w.Errorf("a later transaction has %d keys, want 3", n)
		}
		w.server.show(append(list, later)...)
		sleep(seenMost)
		if s := w.f.Stats(); s.Flushes != 2 || s.Deletions != before.Deletions+3 {
			w.Errorf("%d flushes and %d keys, want 2 and %d", s.Flushes, s.Deletions, before.Deletions+3)
		}
	})
}

// TestUnseenGap checks that very many transactions that no reader sees are a gap, and that as many which
// readers see are none, however fast they come.
func TestUnseenGap(t *testing.T) {
	follows(t, func(w *world) {
		w.lead()
		for range 2 * maxWaiting / changed("1").Size {
			w.server.send(changed("1"))
		}
		sleep(time.Second)
		if s := w.f.Stats(); s.Gaps != 0 || s.Flushes != 0 || s.UnderWay != 0 {
			w.Errorf("after seen ones: %+v", s)
		}
		for range maxWaiting / 512 {
			w.server.sendHidden(changed("1"))
		}
		sleep(seenMost)
		if s := w.f.Stats(); s.State != Following {
			w.Errorf("before there are too many: %+v", s)
		}
		w.server.sendHidden(changed("1"))
		sleep(seenMost)
		if s := w.f.Stats(); s.State != Failed {
			w.Errorf("with too many: %+v", s)
		}
		sleep(gapPause)
		if s := w.f.Stats(); s.Gaps != 1 || !slices.Contains(w.server.log, "give up") {
			w.Errorf("later: %+v, the server did %q", s, w.server.log)
		}
	})
}

// TestMostPending checks that a bound holds for the transactions that wait for a confirmation, and that
// an owner that hangs for long does not end the feed.
func TestMostPending(t *testing.T) {
	follows(t, func(w *world) {
		w.lead()
		end := w.host.hang("first")
		w.server.send(changed("first"))
		const more = maxPending + 3*maxReceived
		for i := range more {
			w.server.send(changed(fmt.Sprint("key", i%50)))
		}
		sleep(time.Minute)
		m := w.server.last()
		if n, most := m.next, maxPending+maxReceived+1; n > most || n < most-1 {
			w.Errorf("%d transactions were taken, want %d", n, most)
		}
		if s := w.f.Stats(); s.UnderWay != maxPending {
			w.Errorf("%d under way, want %d", s.UnderWay, maxPending)
		}
		if m.living < 50 {
			w.Errorf("the server was told %d times in a minute that the host lives", m.living)
		}
		end()
		sleep(time.Minute)
		if want := w.server.sent[more].End; w.server.confirmed != want {
			w.Errorf("confirmed up to %d, want %d", w.server.confirmed, want)
		}
		w.is(Following)
	})
}

// TestEmptyTakeNoRoom checks that what has changed nothing counts for no bound while an owner hangs:
// tables without keys may be far busier.
func TestEmptyTakeNoRoom(t *testing.T) {
	follows(t, func(w *world) {
		w.lead()
		end := w.host.hang("1")
		w.server.send(changed("1"))
		sleep(5 * time.Millisecond)
		for range maxPending + 3*maxReceived {
			w.server.send(&loader.Transaction{})
		}
		sleep(5 * time.Millisecond)
		last := w.server.send(changed("2"))
		sleep(5 * time.Millisecond)
		w.has("one hangs", nil, "2")
		if n := w.f.Stats().UnderWay; n != 2 {
			w.Errorf("%d under way, want 2", n)
		}
		end()
		sleep(5 * time.Millisecond)
		w.has("it has ended", last, "1", "2")
	})
}

// TestKeysAreFreed checks that a transaction that waits for a confirmation keeps no keys: an owner
// that hangs must not fill the memory.
func TestKeysAreFreed(t *testing.T) {
	follows(t, func(w *world) {
		w.lead()
		defer w.host.hang("1")()
		w.server.send(changed("1"))
		for i := range 10 {
			w.server.send(numbered("users", 1000*i+2, 1000*i+1002))
		}
		sleep(5 * time.Millisecond)
		for i, p := range w.server.last().taken {
			if len(p.Changed) > 0 {
				w.Errorf("transaction %d has %d keys", i, len(p.Changed["users"].Keys))
			}
		}
	})
}

// TestErrorEndsRequests checks that an error ends the stream although an owner hangs, and that the next
// stream brings again what was not confirmed.
func TestErrorEndsRequests(t *testing.T) {
	for name, fail := range map[string]func(*world, error){
		"of View":    func(w *world, err error) { w.server.do(func() { w.server.fails = err }) },
		"of Receive": func(w *world, err error) { w.server.last().ends <- err },
	} {
		t.Run(name, func(t *testing.T) {
			follows(t, func(w *world) {
				w.lead()
				end := w.host.hang("1")
				w.server.send(changed("1"))
				sleep(5 * time.Millisecond)
				fail(w, errors.New("cut"))
				sleep(checkEvery + time.Millisecond)
				if s := w.f.Stats(); s.Failures != 1 || !w.server.streams[0].closed {
					w.Errorf("%d failures, want 1: %s", s.Failures, s.State)
				}
				w.server.do(func() { w.server.fails = nil })
				end()
				sleep(time.Minute)
				w.is(Following)
				w.has("afterwards", w.server.sent[0], "1")
			})
		})
	}
}

// TestStats checks the figures of a transaction: how long it waits, and after it how late it was, by
// the clock of the server.
func TestStats(t *testing.T) {
	follows(t, func(w *world) {
		w.lead()
		one := changed("1", "2")
		one.Committed = time.Now().Add(time.Hour - 100*time.Millisecond) // the server's clock is an hour ahead
		w.server.sendHidden(one)
		sleep(2 * time.Second)
		if s := w.f.Stats(); s.UnderWay != 1 || s.LagMS != 2000 || s.Deletions != 0 || s.KeptBytes != 4096 {
			w.Errorf("while it waits: %+v", s)
		}
		w.server.show(one)
		sleep(time.Second)
		s := w.f.Stats()
		if s.UnderWay != 0 || s.LagMS < 2100 || s.LagMS > 2100+seenMost.Milliseconds() || s.Deletions != 2 ||
			s.Rows != 1 || s.Name != "shop" {
			w.Errorf("when it is deleted: %+v", s)
		}
		w.server.send(changed("3"))
		w.server.last().ends <- errors.New("cut")
		sleep(time.Second)
		w.is(Following)
		if s := w.f.Stats(); s.Failures != 1 || s.UnderWay != 0 || s.LagMS != 0 || s.Error != "" {
			w.Errorf("after a failure: %+v", s)
		}
	})
}
