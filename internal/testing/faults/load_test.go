package faults

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// The load of a scenario: a few hundred keys, read and written through every living
// sidecar, at a pace that leaves the machine to others.
const (
	loadKeys   = 300
	writers    = 4
	appTimeout = time.Second
	// slack is for the machine: a request may have been answered in time although the
	// waiting goroutine did not run. It is longer than a stall of a busy host with two
	// cores, and shorter than any hang.
	slack = 3 * time.Second
	// patient is the timeout that patient apps give the sidecar. They wait longer than
	// that, to distinguish a late answer from no answer.
	patient = 300 * time.Millisecond
)

// pace is the mean pause between an app's requests.
const pace = 3 * time.Millisecond * slowness

// load is the apps at work.
type load struct {
	g       *group
	sticky  bool           // each key is written through only one node
	needs   map[string]int // how often each kind must happen to prove anything
	allowed time.Duration  // for a request
	stop    chan struct{}
	wg      sync.WaitGroup

	mu      sync.Mutex
	history []op
	ended   map[int]time.Duration // when a key's last value expires; zero: never
	did     map[string]int        // requests done: reads by source, and writes
	over    bool
	stalls  []stall
	outages []stall // of the origin: reads that end in them may fail or be refused
}

// stall is a period in which a goroutine with a short timer did not run.
type stall struct{ from, to time.Duration }

// If the clock advances by stallFrom between two looks, the machine has stalled.
const (
	lookEvery = 20 * time.Millisecond
	stallFrom = 500 * time.Millisecond
)

// look finds stalls until the apps end.
func (l *load) look() {
	for last := l.now(); ; {
		select {
		case <-l.stop:
			return
		case <-time.After(lookEvery):
		}
		now := l.now()
		if now-last >= stallFrom {
			l.mu.Lock()
			l.stalls = append(l.stalls, stall{last, now})
			l.mu.Unlock()
			l.g.t.Logf("the machine stood still from %.3f s to %.3f s", last.Seconds(), now.Seconds())
		}
		last = now
	}
}

// stalled returns for how long the machine stood still between two times.
func (l *load) stalled(from, to time.Duration) (d time.Duration) {
	for _, s := range l.stalls {
		d += max(0, min(to, s.to)-max(from, s.from))
	}
	return d
}

// work starts apps on all nodes, including nodes that start later.
func (g *group) work(sticky bool) *load {
	needs := map[string]int{"l1": 100, "l2": 100, "peer": 100, "set": 100, "delete": 10, "expired": 10}
	if runtime.GOOS == "linux" {
		needs["shared"] = 100
	}
	l := g.newLoad(needs)
	l.sticky = sticky
	for w := range writers {
		l.wg.Go(func() { l.write(w) })
	}
	for _, n := range g.nodes {
		l.wg.Go(func() { l.read(n) })
		l.wg.Go(func() { l.wait(n) })
	}
	return l
}

// newLoad returns a load without apps.
func (g *group) newLoad(needs map[string]int) *load {
	l := &load{g: g, needs: needs, allowed: appTimeout, stop: make(chan struct{}), did: map[string]int{}, ended: map[int]time.Duration{}}
	l.wg.Go(l.look)
	g.t.Cleanup(l.end) // in case the test fails before it calls check
	return l
}

func (l *load) end() {
	l.mu.Lock()
	over := l.over
	l.over = true
	l.mu.Unlock()
	if !over {
		close(l.stop)
	}
	l.wg.Wait()
}

// now returns the time in the history.
func (l *load) now() time.Duration { return time.Since(l.g.begin) }

// check ends the apps, and checks all the answers that they got. In a split, if there was
// one, two sides were separate clusters.
func (l *load) check(split *stall) {
	t := l.g.t
	t.Helper()
	testenv.Succeeds(t, "the apps to have tried everything: else the history proves little", func() error { return l.enough(l.needs) })
	l.end()
	t.Logf("%sdone: %v", summary(l.plain()), l.did)
	for _, line := range l.broken(l.g.bound, split) {
		t.Error(line)
	}
	var late []*op
	for i := range l.history {
		if o := &l.history[i]; o.allowed == patient && !o.gone && o.late() > 0 {
			late = append(late, o)
		}
	}
	if len(late) > 0 {
		o := slices.MaxFunc(late, func(a, b *op) int { return cmp.Compare(a.late(), b.late()) })
		t.Logf("%d answers came after their deadline; the latest %v after it: %v", len(late), o.late().Round(time.Millisecond), o)
	}
}

func (l *load) sleep() bool {
	select {
	case <-l.stop:
		return false
	case <-time.After(rand.N(2 * pace)):
		return true
	}
}

// record adds requests to the history.
func (l *load) record(ops ...op) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.history = append(l.history, ops...)
	for i := range ops {
		switch o := &ops[i]; {
		case o.out == old || o.out == failed:
			l.did[o.out.String()]++
		case o.out == absent && o.kind == get && l.ended[o.key] != 0 && o.start > l.ended[o.key]:
			l.did["expired"]++
		case o.out != done:
		case o.kind != get:
			l.ended[o.key] = 0
			if o.ttl > 0 {
				l.ended[o.key] = o.end + o.ttl
			}
			l.did[o.kind.String()]++
		case o.note != "":
			l.did[o.note]++
		}
	}
}

// enough returns an error if the apps have not done something often enough yet.
func (l *load) enough(needs map[string]int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for what, least := range needs {
		if l.did[what] < least {
			return fmt.Errorf("%d of %s: %v", l.did[what], what, l.did)
		}
	}
	return nil
}

// begin returns a request that begins now; finish adds its result.
func (l *load) begin(k kind, key int, n *node) op {
	o := op{kind: k, key: key, node: n.index, life: int(n.life.Load()), downs: int(n.downs.Load()), allowed: l.allowed}
	o.gone = !n.up.Load()
	o.start = l.now()
	return o
}

func (l *load) finish(o *op, n *node, err error) {
	o.end = l.now()
	o.out = outcomeOf(err)
	if o.out > absent {
		o.note = err.Error()
	}
	if o.kind == get && o.out == unknown && strings.Contains(o.note, `origin "`) {
		o.out = failed // the sidecar has answered in time that the origin has not
	}
	if o.out == unavailable && strings.Contains(o.note, "has not answered for") {
		o.out = silent // it was not asked, since another call got no answer just before
	}
	o.gone = o.gone || int(n.downs.Load()) != o.downs
	if life := int(n.life.Load()); life != o.life {
		o.life = -1 // either process may have been asked
	}
}

func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return done
	case err == cachesidecar.ErrNotFound:
		return absent
	case errors.Is(err, cachesidecar.ErrNotFound):
		return degraded
	case errors.Is(err, cachesidecar.ErrUnavailable):
		return unavailable
	case errors.Is(err, cachesidecar.ErrBusy):
		return busy
	case errors.Is(err, cachesidecar.ErrOrigin):
		return failed
	case errors.Is(err, rpc.ErrNoAnswer), errors.Is(err, context.DeadlineExceeded):
		return silent
	case errors.Is(err, cachesidecar.ErrTimeout):
		return unknown
	}
	return odd
}

func keyName(key int) string { return "key:" + strconv.Itoa(key) }

// value returns the value of a key's write with a number. Lengths differ, and the bytes
// reveal a mix of two values.
func value(key, seq int) []byte {
	return []byte(fmt.Sprintf("%d/%d/", key, seq) + strings.Repeat(string(rune('a'+seq%26)), seq*37%1500))
}

// readAs stores a read's result in its record.
func readAs(o *op, b []byte) {
	var key int
	if _, err := fmt.Sscanf(string(b[:min(len(b), 40)]), "%d/%d/", &key, &o.seq); err != nil || key != o.key || string(b) != string(value(key, o.seq)) {
		o.out, o.note = odd, fmt.Sprintf("%d bytes that nobody wrote: %.60q", len(b), b)
	}
}

// write is an app that writes some of the keys, and reads some of them back.
func (l *load) write(w int) {
	seqs := map[int]int{}
	for l.sleep() {
		key := rand.IntN(loadKeys/writers)*writers + w
		n := l.g.any()
		if l.sticky {
			if n = l.g.nodes[key%len(l.g.nodes)]; !n.up.Load() {
				n = nil
			}
		}
		if n == nil {
			continue
		}
		seqs[key]++
		if rand.IntN(8) == 0 {
			l.delete(n, key, seqs[key])
		} else {
			l.set(n, key, seqs[key], []time.Duration{0, 0, 0, rand.N(2 * time.Second)}[rand.IntN(4)])
		}
		if rand.IntN(2) == 0 {
			l.get(n, key, cachesidecar.GetOptions{})
		}
	}
}

// set stores a value that expires after ttl; zero: never.
func (l *load) set(n *node, key, seq int, ttl time.Duration) {
	o := l.begin(set, key, n)
	o.seq, o.ttl = seq, ttl.Truncate(time.Millisecond)
	_, err := n.app.Set(context.Background(), keyName(key), value(key, seq), cachesidecar.SetOptions{TTL: o.ttl})
	l.finish(&o, n, err)
	l.record(o)
}

func (l *load) delete(n *node, key, seq int) {
	o := l.begin(del, key, n)
	o.seq = seq
	err := n.app.Delete(context.Background(), keyName(key), cachesidecar.DeleteOptions{})
	l.finish(&o, n, err)
	l.record(o)
}

func (l *load) get(n *node, key int, opts cachesidecar.GetOptions) {
	o := l.begin(get, key, n)
	ctx, cancel := context.WithTimeout(context.Background(), l.allowed)
	item, err := n.client(key).Get(ctx, keyName(key), opts)
	cancel()
	l.finish(&o, n, err)
	if err == nil {
		o.note = item.Source
		readAs(&o, item.Value)
	}
	if item.Stale && o.out == done {
		o.out = old
	}
	l.record(o)
}

// getMulti reads several keys at once. An absent key may have been degraded, because
// GetMulti does not report the difference.
func (l *load) getMulti(n *node, keys []int) {
	var names []string
	var ops []op
	for _, k := range keys {
		names = append(names, keyName(k))
		ops = append(ops, l.begin(get, k, n))
	}
	found, err := n.app.GetMulti(context.Background(), names, cachesidecar.GetOptions{})
	for i := range ops {
		o := &ops[i]
		item, ok := found[names[i]]
		e := err
		if ok {
			e = nil
		} else if err == nil {
			e = cachesidecar.ErrNotFound
		}
		o.note = item.Source
		if l.finish(o, n, e); ok {
			readAs(o, item.Value)
		}
	}
	l.record(ops...)
}

// someKeys picks keys, some of them more often than others.
func someKeys(n int) (keys []int) {
	for range n {
		keys = append(keys, min(rand.IntN(loadKeys), rand.IntN(loadKeys)))
	}
	return keys
}

// read is an app on a node that reads.
func (l *load) read(n *node) {
	for l.sleep() {
		switch {
		case !n.up.Load():
		case rand.IntN(10) == 0:
			l.getMulti(n, someKeys(8))
		default:
			l.get(n, someKeys(1)[0], cachesidecar.GetOptions{})
		}
	}
}

// sweep reads every key through every living node once.
func (l *load) sweep() {
	for key := range loadKeys {
		for _, n := range l.g.living() {
			l.get(n, key, cachesidecar.GetOptions{})
		}
	}
}

// wait is an app on a node that waits for longer than its request's timeout, so that it
// measures the sidecar's own answer. It writes a key of its own, and reads the keys of
// all apps.
func (l *load) wait(n *node) {
	own, seq := loadKeys+n.index, 0
	var c *rpc.Client
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	for l.sleep() {
		if !n.up.Load() {
			continue
		}
		if c != nil && c.Err() != nil {
			c.Close()
			c = nil
		}
		if c == nil {
			if c = patientConn(n); c == nil {
				continue
			}
		}
		q := &wire.Request{Op: wire.OpGet, TTLMS: wire.TTLDefault}
		o := l.begin(get, someKeys(1)[0], n)
		if rand.IntN(3) == 0 {
			seq++
			q.Op, o.kind, o.key, o.seq = wire.OpSet, set, own, seq
			q.Value = value(own, seq)
		}
		q.Key = []byte(keyName(o.key))
		q.TimeoutMS, o.allowed = uint32(patient/time.Millisecond), patient
		call, err := c.Do(context.Background(), patient+slack+time.Second, q)
		l.finish(&o, n, nil)
		l.answered(&o, c, call, err)
		l.record(o)
	}
}

// answered records the answer to a patient app.
func (l *load) answered(o *op, c *rpc.Client, call *rpc.Call, err error) {
	if err != nil {
		if o.out = silent; errors.Is(err, rpc.ErrNotSent) {
			o.out = unavailable
		}
		return
	}
	defer c.Release(call)
	op := wire.OpGet
	if o.kind == set {
		op = wire.OpSet
	}
	var r wire.Reply
	if err := wire.DecodeReply(op, call.Frame(), &r); err != nil {
		o.out, o.note = odd, err.Error()
		return
	}
	switch {
	case r.Status == wire.OK && o.kind == get:
		readAs(o, r.Value)
	case r.Status == wire.OK:
	case r.Status == wire.Miss && r.Why == wire.Degraded:
		o.out = degraded
	case r.Status == wire.Miss:
		o.out = absent
	case r.Status == wire.Unavailable:
		o.out = unavailable
	case r.Status == wire.Busy:
		o.out = busy
	case r.Status == wire.Timeout:
		o.out = unknown
	default:
		o.out, o.note = odd, fmt.Sprintf("%v: %s", r.Status, r.Message)
	}
}

// patientConn connects a patient app. It returns nil if the sidecar does not answer.
func patientConn(n *node) *rpc.Client {
	nc, err := net.Dial("unix", n.spec.Socket)
	if err != nil {
		return nil
	}
	c := rpc.NewClient(nc, rpc.ClientConfig{})
	call, err := c.Do(context.Background(), appTimeout, &wire.Request{Op: wire.OpHello, Hello: wire.Hello{Versions: []int{wire.Version}, Client: "patient"}})
	if err != nil {
		c.Close()
		return nil
	}
	c.Release(call)
	return c
}
