package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/history"
	"github.com/cachesidecar/cachesidecar/internal/testing/linear"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// These are counters and keys that several apps change at once through all living
// sidecars.
const (
	counters = 12
	shared   = 12 // keys that are set and deleted
	counting = 4  // apps
)

// tallied is these counters and keys.
type tallied struct {
	g    *group
	stop chan struct{}
	once sync.Once
	wg   sync.WaitGroup

	mu   sync.Mutex
	next [counters + shared]int64 // the last number of each key that was set
	ops  []history.Op
}

func talliedName(i int) string { return "tallied:" + strconv.Itoa(i) }

// count starts apps that change them.
func (g *group) count() *tallied {
	t := &tallied{g: g, stop: make(chan struct{})}
	for range counting {
		t.wg.Go(t.app)
	}
	g.t.Cleanup(t.end) // in case the test fails before it calls check
	return t
}

func (t *tallied) end() {
	t.once.Do(func() { close(t.stop) })
	t.wg.Wait()
}

// app is one of the apps.
func (t *tallied) app() {
	for {
		select {
		case <-t.stop:
			return
		case <-time.After(rand.N(3 * pace)):
		}
		n := t.g.any()
		if n == nil {
			continue
		}
		i := rand.IntN(counters + shared)
		switch what := rand.IntN(20); {
		case what < 7:
			t.read(n, i, what == 0)
		case i < counters && what < 19:
			t.incr(n, i)
		case i >= counters && what < 15:
			t.set(n, i)
		default:
			end := t.begins(n, history.Op{Kind: del, Key: talliedName(i)})
			end(0, n.app.Delete(context.Background(), talliedName(i), cachesidecar.DeleteOptions{}))
		}
	}
}

// begins records the beginning of an operation. The returned function records its end.
func (t *tallied) begins(n *node, o history.Op) (end func(number int64, err error)) {
	life := n.life.Load()
	o.Host, o.Outcome = fmt.Sprint(n.spec.Node, ".", life), unknown
	t.mu.Lock()
	defer t.mu.Unlock()
	at := len(t.ops)
	o.Began = time.Since(t.g.begin)
	o.Ended = o.Began
	t.ops = append(t.ops, o)
	return func(number int64, err error) {
		ended := time.Since(t.g.begin)
		t.mu.Lock()
		defer t.mu.Unlock()
		o := &t.ops[at]
		if o.Ended, o.Outcome = ended, outcomeOf(err); n.life.Load() != life {
			o.Host = "" // either process may have been asked
		}
		if o.Outcome == done && o.Kind != set {
			o.Number = number
		}
	}
}

func (t *tallied) incr(n *node, i int) {
	end := t.begins(n, history.Op{Kind: history.Incr, Key: talliedName(i)})
	total, err := n.app.Incr(context.Background(), talliedName(i), 1, cachesidecar.IncrOptions{Create: true, Initial: 1})
	end(total, err)
}

func (t *tallied) set(n *node, i int) {
	t.mu.Lock()
	t.next[i]++
	number := t.next[i]
	t.mu.Unlock()
	end := t.begins(n, history.Op{Kind: set, Key: talliedName(i), Number: number})
	_, err := n.app.Set(context.Background(), talliedName(i), strconv.AppendInt(nil, number, 10), cachesidecar.SetOptions{})
	end(number, err)
}

func (t *tallied) read(n *node, i int, fresh bool) {
	end := t.begins(n, history.Op{Key: talliedName(i), Fresh: fresh})
	item, err := n.app.Get(context.Background(), talliedName(i), cachesidecar.GetOptions{Fresh: fresh})
	var number int64
	if err == nil {
		if number, err = strconv.ParseInt(string(item.Value), 10, 64); err != nil {
			t.g.t.Errorf("%s is %q", talliedName(i), item.Value)
		}
	}
	end(number, err)
}

// flush is an app that now and then flushes all hosts, also the counters of t.
func (l *load) flush(t *tallied) {
	for {
		select {
		case <-l.stop:
			return
		case <-time.After(rand.N(6 * time.Second)):
		}
		n := l.g.any()
		if n == nil {
			continue
		}
		o := l.begin(flush, -1, n)
		end := t.begins(n, history.Op{Kind: flush})
		err := n.app.Flush(context.Background(), cachesidecar.FlushOptions{All: rand.IntN(2) == 0})
		end(0, err)
		l.finish(&o, n, err)
		l.record(o)
	}
}

// check ends the apps, increments each counter once more, and judges the history. A counter
// may start again, since hosts are killed, and does not go back otherwise.
func (t *tallied) check() {
	test := t.g.t
	test.Helper()
	testenv.Succeeds(test, "the apps to have done enough", t.enough)
	t.end()
	for i := range counters {
		t.incr(t.g.living()[0], i)
	}
	r := history.Rules{Bound: t.g.bound}
	for _, line := range history.Lines(history.Check(r, t.ops)) {
		test.Error(line)
	}
	for _, key := range linear.Broken(t.ops, true) {
		test.Errorf("%s is not linearizable", key)
	}
	test.Log(summary(t.ops))
}

// enough returns an error if the apps have not done something often enough yet.
func (t *tallied) enough() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var seen [history.Flush + 1]int
	for _, o := range t.ops {
		if o.Acked() {
			seen[o.Kind]++
		}
	}
	for kind, least := range map[kind]int{history.Incr: 300, set: 100, del: 100, get: 200} {
		if seen[kind] < least {
			return fmt.Errorf("%d of %d of kind %v", seen[kind], least, kind)
		}
	}
	return nil
}
