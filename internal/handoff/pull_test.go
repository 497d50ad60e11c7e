package handoff_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/simnet"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// batches stores values that fill two batches, and returns their keys.
func (h *host) batches() (keys []kv.Key) {
	h.t.Helper()
	for i := range 20 {
		keys = append(keys, h.put("default", fmt.Sprint("key", i), strings.Repeat("v", 20<<10), 0))
	}
	return keys
}

// count returns how many of some keys have a live entry.
func (h *host) count(keys []kv.Key) (n int) {
	for _, k := range keys {
		if h.has(k) {
			n++
		}
	}
	return n
}

var busy = wire.ErrorReply(wire.Errorf(wire.Busy, "not now"))

// TestPullTriesAgain checks that a batch is asked for five times in all, with growing
// pauses, and that each batch has tries of its own.
func TestPullTriesAgain(t *testing.T) {
	between(t, "ab", func(t *testing.T, _ *simnet.Net, hosts []*host) {
		a, b := hosts[0], hosts[1]
		keys := a.batches()
		fails := []int{4, 4, 0}
		var asked []uint64
		var times []time.Time
		a.pull = func(from kv.Process, q *wire.Pull) wire.Reply {
			asked, times = append(asked, q.Batch), append(times, time.Now())
			if fails[q.Batch]--; fails[q.Batch] >= 0 {
				return busy
			}
			return a.ServePull(from, q)
		}
		move(a, b, keys...)
		if want := []uint64{0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2}; !slices.Equal(asked, want) {
			t.Fatalf("the batches %v are asked for, want %v", asked, want)
		}
		for i := 1; i < len(asked); i++ {
			pause := time.Duration(i%5) * 50 * time.Millisecond
			if took := times[i].Sub(times[i-1]); took < pause || took > pause+10*time.Millisecond {
				t.Errorf("request %d comes after %v, want %v", i, took, pause)
			}
		}
		if n := b.count(keys); n != len(keys) || b.Counts.Failed.Load() != 0 {
			t.Errorf("%d of %d entries are there; %+v", n, len(keys), b.Stats())
		}
	})
}

// TestSenderFails checks what is left of a pull whose sender fails behind the first batch:
// the entries that have come, and readers that do not wait for others.
func TestSenderFails(t *testing.T) {
	for _, tc := range []struct {
		name        string
		fail        func(a *host, lan *simnet.Net) wire.Reply
		least, most time.Duration
	}{
		{"refuses", func(*host, *simnet.Net) wire.Reply {
			return busy
		}, 500 * time.Millisecond, 520 * time.Millisecond},
		{"sends nonsense", func(*host, *simnet.Net) wire.Reply {
			return wire.Reply{Body: []byte("nonsense")}
		}, 500 * time.Millisecond, 520 * time.Millisecond},
		{"dies", func(a *host, _ *simnet.Net) wire.Reply {
			a.kill()
			return wire.Reply{}
		}, 500 * time.Millisecond, 2 * time.Second},
		{"is cut off", func(a *host, lan *simnet.Net) wire.Reply {
			lan.Isolate(a.net.IP())
			return wire.Reply{}
		}, time.Second, 5600 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			between(t, "ab", func(t *testing.T, lan *simnet.Net, hosts []*host) {
				a, b := hosts[0], hosts[1]
				keys := a.batches()
				var failed time.Time
				first := 0
				a.pull = func(from kv.Process, q *wire.Pull) wire.Reply {
					if q.Batch == 0 {
						r := a.ServePull(from, q)
						first = len(decoded[wire.Pulled](t, r).Entries)
						return r
					}
					if failed.IsZero() {
						failed = time.Now()
					}
					return tc.fail(a, lan)
				}
				move(a, b, keys...)
				if took := time.Since(failed); took < tc.least || took > tc.most {
					t.Errorf("the pull ends after %v, want %v to %v", took, tc.least, tc.most)
				}
				if n := b.count(keys); n != first || n == 0 || b.Counts.Failed.Load() != 1 {
					t.Errorf("%d entries are there, want %d; %+v", n, first, b.Stats())
				}
				if b.waits(keys...) {
					t.Error("entries are awaited")
				}
				for _, want := range []string{"entries were not all handed over", "from=a", "batch=1"} {
					if !strings.Contains(b.log.String(), want) {
						t.Errorf("the log does not have %q: %s", want, b.log)
					}
				}
				lan.Heal()
			})
		})
	}
}

// TestOwnershipEndsDuringPull checks that a pull ends when no caller waits for it any more,
// and goes on while one of its partitions is owned.
func TestOwnershipEndsDuringPull(t *testing.T) {
	for _, tc := range []struct {
		name  string
		ends  func(keys []kv.Key) kv.PartitionSet
		asked int
	}{
		{"all", func(keys []kv.Key) kv.PartitionSet { return partitions(keys...) }, 1},
		{"all but one", func(keys []kv.Key) kv.PartitionSet { return partitions(keys[1:]...) }, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			between(t, "ab", func(t *testing.T, _ *simnet.Net, hosts []*host) {
				a, b := hosts[0], hosts[1]
				keys := a.batches()
				asked := 0
				a.pull = func(from kv.Process, q *wire.Pull) wire.Reply {
					if asked++; asked == 1 {
						b.Ended(tc.ends(keys), b.next())
					}
					return a.ServePull(from, q)
				}
				move(a, b, keys...)
				if asked != tc.asked || b.waits(keys...) || b.Counts.Failed.Load() != 0 {
					t.Errorf("%d batches were asked for, want %d; entries are awaited: %v; %+v",
						asked, tc.asked, b.waits(keys...), b.Stats())
				}
			})
		})
	}
}

// TestOwnershipBeginsAgain checks that entries that come for an ownership that has ended
// are not taken for the next one, and that the old pull leaves its source alone.
func TestOwnershipBeginsAgain(t *testing.T) {
	between(t, "abc", func(t *testing.T, _ *simnet.Net, hosts []*host) {
		a, b, c := hosts[0], hosts[1], hosts[2]
		k := a.put("default", "k", "old", 0)
		c.put("default", "k", "new", 0)
		set := partitions(k)
		goOn := make(chan struct{})
		c.pull = func(from kv.Process, q *wire.Pull) wire.Reply { <-goOn; return c.ServePull(from, q) }
		a.pull = func(from kv.Process, q *wire.Pull) wire.Reply {
			r := a.ServePull(from, q)
			b.Ended(set, b.next())
			again := b.ballot()
			c.release(again, set)
			b.begin(again, c, set)
			return r
		}
		ballot := b.ballot()
		a.release(ballot, set)
		b.begin(ballot, a, set)
		time.Sleep(100 * time.Millisecond) // the answer of a has come, and that of c has not
		synctest.Wait()
		want := cachesidecar.HandoffStats{Pulling: 1, Pulled: 1, Refused: 1, Bytes: 4}
		if got := b.Stats(); got != want || b.has(k) {
			t.Errorf("the old entry is there: %v; %+v, want %+v", b.has(k), got, want)
		}
		if src := b.Incoming[k.Hash.Partition()].Load(); src == nil || src.From != c.self {
			t.Errorf("the source is %+v, want c", src)
		}
		close(goOn)
		b.pulled()
		if v, _, _ := b.store.Get(nil, k, segment.NoLimit, b.boot()); string(v) != "new" || b.waits(k) {
			t.Errorf("in the end it is %q; entries are awaited: %v", v, b.waits(k))
		}
	})
}

// TestChangesDuringPull checks that what the new owner changes between two batches stays
// changed when the second one comes.
func TestChangesDuringPull(t *testing.T) {
	between(t, "ab", func(t *testing.T, _ *simnet.Net, hosts []*host) {
		a, b := hosts[0], hosts[1]
		keys := a.batches()
		flushed := a.put("other", "flushed", "v", 0)
		theirs := b.key("other", "flushed")
		var written, deleted kv.Key
		a.pull = func(from kv.Process, q *wire.Pull) wire.Reply {
			if q.Batch == 1 {
				for _, k := range keys { // those that the first batch did not bring
					if !b.has(k) && written.Bytes == nil {
						written = b.put("default", string(k.Bytes), "new", 0)
					} else if !b.has(k) {
						deleted = k
					}
				}
				b.store.Delete(deleted, b.clock.Read())
				floor := b.next()
				b.store.Flush(theirs.Namespace, floor)
				b.ledger.RaiseFlush(theirs.Namespace, floor)
			}
			return a.ServePull(from, q)
		}
		move(a, b, append(slices.Clone(keys), flushed)...)
		if v, _, _ := b.store.Get(nil, written, segment.NoLimit, b.boot()); string(v) != "new" {
			t.Errorf("a key that was written is %.10q", v)
		}
		if b.has(deleted) || b.has(theirs) {
			t.Errorf("a deleted entry is there: %v; a flushed one: %v", b.has(deleted), b.has(theirs))
		}
		if n := b.count(keys); n != len(keys)-1 {
			t.Errorf("%d entries are there, want all of %d but one", n, len(keys))
		}
	})
}

// TestBeforeRun checks that nothing is asked for before Run.
func TestBeforeRun(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		a, b := newHost(t, "a", soft), newHost(t, "b", soft)
		k := a.put("default", "k", "v", 0)
		b.begin(b.ballot(), a, partitions(k))
		src := b.Incoming[k.Hash.Partition()].Load()
		if err := b.Fetch(context.Background(), src, namespaces.Default, k, time.Second); err == nil {
			t.Error("an entry is fetched")
		}
		if b.Stats() != (cachesidecar.HandoffStats{}) {
			t.Errorf("it counts %+v", b.Stats())
		}
	})
}

// ahead returns a version that no host can have stamped yet.
func (h *host) ahead() uint64 {
	return uint64(kv.FirstVersionAt(h.clock.Read().Wall + time.Hour.Milliseconds()))
}

// TestBadAnswers checks that nothing of an answer counts that cannot be read, or that has
// a version from the future.
func TestBadAnswers(t *testing.T) {
	between(t, "ab", func(t *testing.T, _ *simnet.Net, hosts []*host) {
		a, b := hosts[0], hosts[1]
		k := a.put("default", "k", "v", 0)
		now := uint64(a.next())
		good := wire.Entry{Namespace: "default", Key: k.Bytes, Value: []byte("v"), Version: now}
		late := good
		late.Version = a.ahead()
		body := func(p wire.Pulled, f wire.Fetched) [2]wire.Reply {
			return [2]wire.Reply{wire.BodyReply(p), wire.BodyReply(f)}
		}
		both := func(r wire.Reply) [2]wire.Reply { return [2]wire.Reply{r, r} }
		for _, tc := range []struct {
			name    string
			answers [2]wire.Reply // to PULL and FETCH
			refused bool
			says    string
		}{
			{"no body", both(wire.Reply{}), false, ""},
			{"nonsense", both(wire.Reply{Body: []byte{0xc1, 0xff}}), false, ""},
			{"another message", both(wire.BodyReply(wire.Floor{Namespace: "default"})), false, ""},
			{"an error", both(busy), false, "not now"},
			{"as of the future", body(
				wire.Pulled{AsOf: a.ahead(), Entries: []wire.Entry{good}},
				wire.Fetched{AsOf: a.ahead(), Found: true, Entry: good},
			), true, ""},
			{"an entry of the future", body(
				wire.Pulled{AsOf: now, Entries: []wire.Entry{good, late}},
				wire.Fetched{AsOf: now, Found: true, Entry: late},
			), true, ""},
		} {
			a.pull = func(kv.Process, *wire.Pull) wire.Reply { return tc.answers[0] }
			a.fetch = func(kv.Process, *wire.Fetch) wire.Reply { return tc.answers[1] }
			src := b.from(b.ballot(), a, partitions(k))
			size, done, err := b.PullBatch(context.Background(), src, 0)
			if err == nil || size != 0 || done {
				t.Errorf("%s: a batch of %d bytes, done: %v, %v", tc.name, size, done, err)
			}
			for _, err := range []error{err, b.FetchNow(context.Background(), src, namespaces.Default, k)} {
				refused := errors.Is(err, peer.ErrRefused)
				if err == nil || refused != tc.refused || !strings.Contains(err.Error(), tc.says) {
					t.Errorf("%s: the error is %v", tc.name, err)
				}
			}
			if got := b.Stats(); b.has(k) || got != (cachesidecar.HandoffStats{}) {
				t.Errorf("%s: the entry is there: %v; %+v", tc.name, b.has(k), got)
			}
		}
		a.pull = func(kv.Process, *wire.Pull) wire.Reply {
			return wire.BodyReply(wire.Pulled{AsOf: now, Entries: []wire.Entry{good}})
		}
		size, done, err := b.PullBatch(context.Background(), b.from(b.ballot(), a, partitions(k)), 0)
		if size != 2 || done || err != nil {
			t.Errorf("a good answer: %d, %v, %v", size, done, err)
		}
		if !b.has(k) {
			t.Error("the good answer's entry is not there")
		}
	})
}

// TestAnswersAreGivenBack checks that the memory of an answer is free once its entries are
// stored.
func TestAnswersAreGivenBack(t *testing.T) {
	between(t, "ab", func(t *testing.T, _ *simnet.Net, hosts []*host) {
		a, b := hosts[0], hosts[1]
		a.batches()
		long := a.put("default", "long", strings.Repeat("v", 300<<10), 0)
		ballot := b.ballot()
		a.release(ballot, all())
		src := b.from(ballot, a, all())
		budget := quota.NewBudget(0)
		ctx := quota.WithAccount(context.Background(), budget.Open("a reader", ""))
		taken := func() int64 { return budget.Stats().Peers }
		if err := b.FetchNow(ctx, src, namespaces.Default, long); err != nil || taken() != 0 || !b.has(long) {
			t.Errorf("after a fetch %d bytes are taken; %v", taken(), err)
		}
		if size, _, err := b.PullBatch(ctx, src, 0); err != nil || taken() != 0 || size < 256<<10 {
			t.Errorf("after a batch of %d bytes %d are taken; %v", size, taken(), err)
		}
		var kept peer.Answer // as it would be
		body := wire.MarshalBody(&wire.Pull{Ballot: src.Ballot, Partitions: src.Partitions.Bytes()})
		err := b.node.Do(ctx, a.self, time.Second, &wire.Request{Op: wire.OpPull, Body: body}, &kept)
		if err != nil || taken() < 256<<10 {
			t.Errorf("with an answer %d bytes are taken; %v", taken(), err)
		}
		kept.Release()
	})
}

// TestBadEntries checks that entries that no healthy host sends are left out, one by one,
// and that the others of their batch are stored.
func TestBadEntries(t *testing.T) {
	between(t, "ab", func(t *testing.T, _ *simnet.Net, hosts []*host) {
		a, b := hosts[0], hosts[1]
		key := func(name string) kv.Key { return a.key("default", name) }
		elsewhere := key("elsewhere")
		longest := strings.Repeat("k", kv.MaxKeyLen)
		b.put("one", "k", "v", 0)
		b.put("two", "k", "v", 0) // no slot is left
		now := uint64(a.next())
		set := all()
		set.Remove(elsewhere.Hash.Partition())
		var list []wire.Entry
		want, size := map[string]bool{}, 0
		add := func(stored bool, e wire.Entry) {
			e.Version = now
			if e.Namespace == "" {
				e.Namespace = "default"
			}
			list = append(list, e)
			want[string(e.Key)] = stored
			size += len(e.Key) + len(e.Value)
		}
		add(false, wire.Entry{})
		add(false, wire.Entry{Key: []byte(longest + "k")})
		add(false, wire.Entry{Key: []byte("bad name"), Namespace: "Bad Name"})
		add(false, wire.Entry{Key: []byte("one name too many"), Namespace: "three"})
		add(false, wire.Entry{Key: elsewhere.Bytes, Value: []byte("v")})
		add(false, wire.Entry{Key: []byte("too long"), Value: make([]byte, b.store.Config().MaxValue+1)})
		add(true, wire.Entry{Key: []byte(longest)})
		add(true, wire.Entry{Key: []byte("as long as may be"), Value: make([]byte, b.store.Config().MaxValue)})
		add(true, wire.Entry{Key: []byte("many hits"), Hits: math.MaxInt})
		add(true, wire.Entry{Key: []byte("few hits"), Hits: math.MinInt})
		add(true, wire.Entry{Key: []byte("no end"), TTLMS: math.MaxInt64})
		a.pull = func(kv.Process, *wire.Pull) wire.Reply {
			return wire.BodyReply(wire.Pulled{AsOf: now, Entries: list, Done: true})
		}
		got, done, err := b.PullBatch(context.Background(), b.from(b.ballot(), a, set), 0)
		if got != size || !done || err != nil {
			t.Errorf("%d bytes, done: %v, %v; want %d", got, done, err, size)
		}
		for name, stored := range want {
			if name != "" && b.has(key(name)) != stored {
				t.Errorf("%.20q is there: %v, want %v", name, !stored, stored)
			}
		}
		counts := cachesidecar.HandoffStats{Pulled: 11, Admitted: 5, Refused: 6, Bytes: int64(size)}
		if got := b.Stats(); got != counts {
			t.Errorf("it counts %+v, want %+v", got, counts)
		}
	})
}

// TestRestore checks what this host must not know of a key for an entry to be stored: a
// later change of the key, a later end of its partition, a flush above its version, an
// entry, or another ownership.
func TestRestore(t *testing.T) {
	type known struct {
		b             *host
		k             kv.Key
		version, asOf kv.Version
	}
	for _, tc := range []struct {
		name string
		do   func(s known)
		want bool
	}{
		{"nothing", func(known) {}, true},
		{"a change after the release", func(s known) { s.b.ledger.Note(s.k.Hash, s.asOf+1) }, false},
		{"a change before the release", func(s known) { s.b.ledger.Note(s.k.Hash, s.asOf) }, true},
		{"a later release", func(s known) { s.b.ledger.RaisePartition(s.k.Hash.Partition(), s.asOf+1) }, false},
		{"this release", func(s known) { s.b.ledger.RaisePartition(s.k.Hash.Partition(), s.asOf) }, true},
		{"a flush after the write", func(s known) { s.b.ledger.RaiseFlush(s.k.Namespace, s.version+1) }, false},
		{"a flush before the write", func(s known) { s.b.ledger.RaiseFlush(s.k.Namespace, s.version) }, true},
		{"a flush in the store", func(s known) { s.b.store.Flush(s.k.Namespace, s.version+1) }, false},
		{"an earlier flush in the store", func(s known) { s.b.store.Flush(s.k.Namespace, s.version) }, true},
		{"an entry", func(s known) { s.b.put("default", "k", "here", 0) }, false},
		{"a negative entry", func(s known) { s.b.absent("k", time.Hour) }, false},
		{"a deletion", func(s known) { s.b.store.Delete(s.k, s.b.clock.Read()) }, false},
		{"another ownership", func(s known) { s.b.store.NewOwnership(s.k.Hash.Partition()) }, false},
		{"the end of the pull", func(s known) { s.b.Incoming[s.k.Hash.Partition()].Store(nil) }, false},
		{"another partition's ownership", func(s known) { s.b.store.NewOwnership(s.k.Hash.Partition() ^ 1) }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				a, b := newHost(t, "a", soft), newHost(t, "b", soft)
				k := b.key("default", "k")
				s := known{b, k, b.next(), b.next()}
				src := b.from(b.ballot(), a, partitions(k))
				tc.do(s)
				e := wire.Entry{Namespace: "default", Key: k.Bytes, Value: []byte("moved"), Version: uint64(s.version)}
				if got := b.Restore(src, &e, s.asOf, b.clock.Read()) == segment.Stored; got != tc.want {
					t.Errorf("stored: %v, want %v", got, tc.want)
				}
				v, info, _ := b.store.Get(nil, k, segment.NoLimit, b.boot())
				if got := string(v) == "moved" && info.Version == s.version; got != tc.want {
					t.Errorf("the store has %q, %+v", v, info)
				}
			})
		})
	}
}

// TestRestoreLeavesNoPin checks that the name of an entry that has come can lose its slot
// afterwards.
func TestRestoreLeavesNoPin(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		b := newHost(t, "b", soft)
		src := b.from(b.ballot(), newHost(t, "a", soft), all())
		b.put("full", "k", "v", 0)
		e := wire.Entry{Namespace: "one", Key: []byte("k"), Version: 1}
		if b.Restore(src, &e, b.next(), b.clock.Read()) != segment.Stored {
			t.Error("it is not stored")
		}
		b.store.Delete(b.key("one", "k"), b.clock.Read())
		b.key("two", "k") // fails if "one" keeps its slot
	})
}
