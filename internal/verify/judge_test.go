package verify

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/history"
)

// world is writes and reads of one key, which Live and a history.Checker judge.
type world struct {
	now     time.Duration
	live    *Live
	key     *liveKey
	checker *history.Checker

	write   *write // under way; nil: there is none
	written *history.Running
	reads   []*history.Running // under way, by reader; nil: there is none
}

func newWorld(bound time.Duration) *world {
	self := kv.Process{Node: "a"}
	w := &world{key: &liveKey{name: []byte("k")}, checker: history.NewChecker(history.Rules{Bound: bound})}
	w.live = &Live{cfg: LiveConfig{Self: self, Bound: bound, Now: func() time.Duration { return w.now }}}
	for _, host := range []kv.Process{self, {Node: "b"}, {Node: "c"}} {
		w.live.readers = append(w.live.readers, &reader{&liveNode{id: host}, never})
	}
	w.reads = make([]*history.Running, len(w.live.readers))
	return w
}

// writes begins the next write, or ends the one under way.
func (w *world) writes(acked bool) {
	if w.write == nil {
		w.write = w.live.beginWrite(w.key)
		w.written = w.checker.Begin(history.Op{
			Kind: history.Set, Outcome: history.Unknown, Key: "k", Number: w.write.number,
			Host: w.live.cfg.Self.String(), Began: w.now,
		})
		return
	}
	w.live.endWrite(w.key, w.write, acked)
	if w.written.Ended = w.now; acked {
		w.written.Outcome = history.Done
	}
	w.checker.End(w.written)
	w.write = nil
}

// read begins a read of a reader, or ends the one under way, which has found a number. It returns the
// two verdicts.
func (w *world) read(i int, fresh bool, number int64) (got, want string, stale, wantStale time.Duration) {
	r := w.live.readers[i]
	if w.reads[i] == nil {
		r.began = w.live.tick()
		w.reads[i] = w.checker.Begin(history.Op{Key: "k", Host: r.id.String(), Began: w.now, Fresh: fresh})
		return "", "", 0, 0
	}
	running := w.reads[i]
	w.reads[i] = nil
	running.Ended, running.Number = w.now, number
	verdict := w.checker.End(running)
	now := w.live.tick()
	found := w.live.judge(w.key, r, running.Fresh, number, now)
	if found.rule != "" {
		got = found.rule + ": " + operation("read", w.key, number, r.id, r.began.at, now.at, "done") + found.reason(w.key, w.live.cfg.Self)
	}
	r.began = never
	return got, verdict.String(), found.stale, verdict.Stale
}

// TestJudgeAgrees: the judge says of each answer what that of the tests' histories says, in the same words.
func TestJudgeAgrees(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(20)
		for range 400 {
			w.now += time.Duration(rnd.IntN(4)) // often none
			if rnd.IntN(4) == 0 {
				w.writes(rnd.IntN(8) > 0)
				continue
			}
			number := w.key.number + 1 - int64(rnd.ExpFloat64()*2)
			got, want, stale, wantStale := w.read(rnd.IntN(len(w.reads)), rnd.IntN(3) == 0, number)
			if forgotten(got) || forgotten(want) { // each judge forgets at moments of its own
				if got == "" || want == "" {
					t.Fatalf("seed %d: %q, want %q", seed, got, want)
				}
				continue
			}
			if got != want || stale != wantStale {
				t.Fatalf("seed %d: %q, stale %v, want %q, stale %v", seed, got, stale, want, wantStale)
			}
			rule, _, _ := strings.Cut(got, ": ")
			seen[rule]++
		}
	}
	for _, rule := range []string{"", unwritten, ownWrite, notFresh, beyondBound} {
		if n := seen[rule]; n < 100 {
			t.Errorf("only %d of %q", n, rule)
		}
	}
}

// forgotten reports whether a verdict is of a value that was forgotten.
func forgotten(verdict string) bool {
	return strings.HasPrefix(verdict, beyondBound) && !strings.Contains(verdict, "; ")
}

// TestForget: what is kept of a key does not grow with the check, and a value from long ago is wrong still.
func TestForget(t *testing.T) {
	w := newWorld(time.Second)
	most := 0
	w.read(1, false, 0) // sees what it might: nothing is forgotten before it has ended
	for i := range 20_000 {
		for range 2 {
			w.now += time.Millisecond
			w.writes(i%70 != 0)
		}
		switch {
		case i == 500:
			if got, _, _, _ := w.read(1, false, 2); got != "" || w.key.forgotten > 0 {
				t.Errorf("the slow read: %s; %d are forgotten", got, w.key.forgotten)
			}
		case i > 1000:
			most = max(most, len(w.key.writes))
		}
	}
	if most > 2000 || most < 300 {
		t.Errorf("%d writes were kept", most)
	}
	for _, number := range []int64{2, 9, 19_000, w.key.forgotten} {
		w.read(2, false, 0)
		if got, want, stale, _ := w.read(2, false, number); !strings.HasPrefix(got, beyondBound) ||
			!strings.HasPrefix(want, beyondBound) || stale <= time.Second {
			t.Errorf("number %d: %q, stale by %v, want %q", number, got, stale, want)
		}
	}
	for _, number := range []int64{w.key.number, w.key.number + 1} {
		w.read(2, false, 0)
		if got, want, _, _ := w.read(2, false, number); got != want {
			t.Errorf("number %d: %q, want %q", number, got, want)
		}
	}
}
