package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/history"
)

// The apps of a soak. Their history is too long to be kept, so each read is judged at
// once.
const (
	soakApps = 8     // of a host
	soakKeys = 6_000 // besides the pages
	// firstStored is the first of their keys, which are no pages.
	firstStored = 100_000
)

// soakLoad is apps on all hosts.
type soakLoad struct {
	*load
	pages    *pages
	keys     []*soakKey   // the stored ones, then the pages
	rate     atomic.Int64 // requests a second that all apps together send; zero: as many as are answered
	asked    atomic.Int64 // requests that succeeded
	hits     atomic.Int64
	gaps     atomic.Int64 // requests that failed while their host was not up
	degraded atomic.Int64 // reads that missed because the key's owner could not be asked
	without  atomic.Int64 // reads of pages that succeeded while their origin was down
	skipped  atomic.Int64 // requests that were never sent, because they were a second late

	checked sync.Mutex
	history *history.Checker

	judged  sync.Mutex
	latency *hdrhistogram.Histogram // in microseconds, from when a request was due
	failed  []op
	wrong   []string
}

// soakKey is a key that one app at a time writes.
type soakKey struct {
	key   int
	begun int // the last write that has begun
}

func newSoakLoad(g *group, p *pages) *soakLoad {
	l := &soakLoad{load: g.newLoad(nil), pages: p, latency: hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 3),
		history: history.NewChecker(history.Rules{Bound: g.bound})}
	for i := range soakKeys {
		l.keys = append(l.keys, &soakKey{key: firstStored + i})
	}
	for i := range rowKeys {
		l.keys = append(l.keys, &soakKey{key: firstPage + i, begun: 1})
		first := op{kind: set, key: firstPage + i, seq: 1} // as newPages wrote it
		l.ends(l.begins(&first), &first)
	}
	for _, n := range g.nodes {
		for i := range soakApps {
			l.wg.Go(func() { l.app(n, n.index*soakApps+i) })
		}
	}
	l.wg.Go(l.changePages)
	return l
}

// interval returns the time between two requests of an app. The hosts that are up share
// the load.
func (l *soakLoad) interval() time.Duration {
	rate := l.rate.Load()
	if rate == 0 {
		return 0
	}
	apps := time.Duration(0)
	for _, n := range l.g.nodes {
		if n.up.Load() {
			apps += soakApps
		}
	}
	return apps * time.Second / time.Duration(rate)
}

// peak measures how many requests succeed in a second if each app sends the next one as
// soon as it has the answer.
func (l *soakLoad) peak(d time.Duration) float64 {
	time.Sleep(d / 2) // the keys are written, and copies made
	before, begun := l.asked.Load(), time.Now()
	time.Sleep(d)
	return float64(l.asked.Load()-before) / time.Since(begun).Seconds()
}

// app is an app on a node. Its requests are due at fixed times, whether or not the answers
// before them came late.
func (l *soakLoad) app(n *node, number int) {
	seen := hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 3)
	defer func() {
		l.judged.Lock()
		defer l.judged.Unlock()
		l.latency.Merge(seen)
	}()
	due := time.Now()
	for {
		select {
		case <-l.stop:
			return
		default:
		}
		interval := l.interval()
		if !n.up.Load() {
			time.Sleep(pace)
			due = time.Now()
			continue
		}
		if interval == 0 {
			due = time.Now()
		} else if due = due.Add(interval); time.Until(due) > 0 {
			time.Sleep(time.Until(due))
		} else if time.Since(due) > time.Second {
			l.skipped.Add(1)
			continue
		}
		l.request(n, number)
		if interval > 0 {
			_ = seen.RecordValue(min(time.Since(due), time.Minute).Microseconds())
		}
	}
}

// request does one request of an app: nine in ten read. Each key has one app that writes it.
func (l *soakLoad) request(n *node, number int) {
	apps := len(l.g.nodes) * soakApps
	switch i := rand.IntN(100); {
	case i < 8:
		l.write(n, l.keys[rand.IntN(soakKeys/apps)*apps+number], set)
	case i < 10:
		l.write(n, l.keys[rand.IntN(soakKeys/apps)*apps+number], del)
	case i < 15:
		l.read(n, l.keys[soakKeys+rand.IntN(rowKeys)])
	default:
		l.read(n, l.keys[min(rand.IntN(soakKeys), rand.IntN(soakKeys))])
	}
}

func (l *soakLoad) write(n *node, k *soakKey, what kind) {
	k.begun++
	key, seq := k.key, k.begun
	o := l.begin(what, key, n)
	o.seq = seq
	running := l.begins(&o)
	var err error
	if what == set {
		_, err = n.app.Set(context.Background(), keyName(key), value(key, seq), cachesidecar.SetOptions{})
	} else {
		err = n.app.Delete(context.Background(), keyName(key), cachesidecar.DeleteOptions{})
	}
	l.finish(&o, n, err)
	l.ends(running, &o)
	l.judge(&o)
}

// begins and ends tell the checker of a request.
func (l *soakLoad) begins(o *op) *history.Running {
	p := o.plain()
	l.checked.Lock()
	defer l.checked.Unlock()
	return l.history.Begin(p)
}

func (l *soakLoad) ends(r *history.Running, o *op) {
	p := o.plain()
	l.checked.Lock()
	defer l.checked.Unlock()
	r.Op = p
	if v := l.history.End(r); v.Rule != "" {
		l.reject("%v", v)
	}
}

func (l *soakLoad) read(n *node, k *soakKey) {
	o := l.begin(get, k.key, n)
	running := l.begins(&o)
	item, err := n.client(o.key).Get(context.Background(), keyName(o.key), cachesidecar.GetOptions{})
	l.finish(&o, n, err)
	if err == nil {
		l.hits.Add(1)
		if o.key < firstStored && l.pages.isDown() {
			l.without.Add(1)
		}
		if readAs(&o, item.Value); o.out == odd {
			l.reject("%v", &o)
		}
	} else if o.key < firstStored && o.out == absent {
		l.reject("a page was not found: %v", &o)
	}
	l.ends(running, &o)
	l.judge(&o)
}

// changePages is an app that changes pages at their origin, and deletes their keys.
func (l *soakLoad) changePages() {
	for l.sleep() {
		k := l.keys[soakKeys+rand.IntN(rowKeys)]
		k.begun++
		key, seq := k.key, k.begun
		change := op{kind: set, key: key, seq: seq, start: l.now(), life: -1}
		running := l.begins(&change)
		if !l.insist(func() error { return l.pages.put(key, seq) }) {
			return
		}
		l.insist(func() error {
			n := l.g.any()
			o := l.begin(del, key, n)
			o.seq = seq
			err := n.client(key).Delete(context.Background(), keyName(key), cachesidecar.DeleteOptions{})
			if errors.Is(err, cachesidecar.ErrNotFound) {
				err = nil
			}
			if l.finish(&o, n, err); err == nil {
				change.node, change.life, change.end = o.node, o.life, o.end
				l.ends(running, &change)
			}
			l.judge(&o)
			return err
		})
	}
}

// judge counts a request, or keeps it if it failed.
func (l *soakLoad) judge(o *op) {
	switch {
	case o.out == done || o.out == absent:
		l.asked.Add(1)
	case o.gone:
		l.gaps.Add(1)
	case o.out == degraded:
		l.degraded.Add(1)
	default:
		l.judged.Lock()
		defer l.judged.Unlock()
		if len(l.failed) < 100_000 {
			l.failed = append(l.failed, *o)
		}
	}
}

func (l *soakLoad) reject(format string, args ...any) {
	l.judged.Lock()
	defer l.judged.Unlock()
	l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
}

// outage notes that the origin fails from now on. The returned function notes its end:
// a breaker that has opened (0.5 s) and a load that began before (0.5 s) end 1 s later.
func (l *soakLoad) outage() (over func()) {
	from := l.now()
	l.judged.Lock()
	defer l.judged.Unlock()
	i := len(l.outages)
	l.outages = append(l.outages, stall{from, never})
	return func() {
		l.judged.Lock()
		defer l.judged.Unlock()
		l.outages[i].to = l.now() + time.Second + slack/3
	}
}

// failures returns the errors of apps, and how many requests are none although they
// failed. Each request that fails is an error, whatever its op and its status, but for
//
//   - a request to a host that is not up, from just before SIGTERM until its next process
//     answers: an app on that host has nothing to ask (see node.down);
//   - a read of a page whose value is not in the cache while its origin is down: it fails
//     with ORIGIN, or BUSY behind the breaker. Almost all values are in the cache, so at
//     most a third of these reads may fail. The breaker closes with the next load: a read
//     beside that one is BUSY too, although the origin may be back for long;
//   - a read that misses because the key's owner cannot be asked: the client returns
//     ErrNotFound, and the app loads. At most one request in a thousand may miss so;
//   - a request that ran when the machine ran no process, the test included, for half a
//     second or more: from 2 s before that to 5 s after it.
func (l *soakLoad) failures() (bad []op, origin, stalled int) {
	for _, o := range l.failed {
		down := false
		for _, w := range l.outages {
			down = down || o.end >= w.from && o.start <= w.to
		}
		switch {
		case o.kind == get && o.key < firstStored &&
			(down && (o.out == failed || o.out == busy) || o.out == busy && strings.Contains(o.note, "its breaker lets")):
			origin++
		case l.stalled(o.start-5*time.Second, o.end+2*time.Second) > 0:
			stalled++
		default:
			bad = append(bad, o)
		}
	}
	return bad, origin, stalled
}

// report judges what the apps have seen.
func (l *soakLoad) report(took time.Duration) {
	t := l.g.t
	t.Helper()
	bad, origin, stalled := l.failures()
	t.Logf("%d requests succeeded, %.0f/s, %d of them hits; p50 %d µs, p99 %d µs, p99.9 %d µs from when they were due",
		l.asked.Load(), float64(l.latency.TotalCount())/took.Seconds(), l.hits.Load(), l.latency.ValueAtQuantile(50),
		l.latency.ValueAtQuantile(99), l.latency.ValueAtQuantile(99.9))
	t.Logf("%d requests were not sent, a second after they were due; %d reads missed because the owner was not reached",
		l.skipped.Load(), l.degraded.Load())
	t.Logf("failed: %d; and %d to hosts that were not up, %d while the machine stood still, %d of pages while the "+
		"origin was down (%d were found)", len(bad), l.gaps.Load(), stalled, origin, l.without.Load())
	if len(l.stalls) == 0 { // else the shares say little
		if d, most := l.degraded.Load(), l.asked.Load()/1000; d > most {
			t.Errorf("%d reads missed because the owner could not be asked: want %d at most", d, most)
		}
		if most := int(l.without.Load()) / 2; origin > most {
			t.Errorf("%d reads of pages failed while the origin was down: want %d at most", origin, most)
		}
	}
	for i, o := range bad {
		if i == 20 {
			t.Errorf("and %d more", len(bad)-i)
			break
		}
		t.Errorf("an app's request failed: %v", &o)
	}
	for i, line := range l.wrong {
		if i == 20 {
			t.Errorf("and %d more", len(l.wrong)-i)
			break
		}
		t.Errorf("a wrong value: %s", line)
	}
}
