package hosts

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/segment"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Rows that change at a primary, whose replicas lag, while apps announce the changes at all doors, and faults
// happen. What a load brings from a replica must not be read from a cache once a later value was announced.

// replicas are rows, which number their changes, and replicas that have them a while later.
type replicas struct {
	mu    sync.Mutex
	rnd   *rand.Rand
	most  time.Duration          // the longest lag
	begin func(key []byte)       // called before a load
	rows  map[string][]time.Time // when the row got its values 1, 2, …; 0: there is no row
}

// announced is a value of a row that an app has announced.
type announced struct {
	n  int
	at time.Time
	by string // the process that has acknowledged it
}

// seen returns the value of a row at a replica.
func (l *replicas) seen(key string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen, n := time.Now().Add(-time.Duration(l.rnd.Int64N(int64(l.most)))), 0
	for _, at := range l.rows[key] {
		if !at.After(seen) {
			n++
		}
	}
	return n
}

func (l *replicas) Load(ctx context.Context, key []byte) (loader.Value, error) {
	if l.begin != nil {
		l.begin(key)
	}
	n := l.seen(string(key))
	l.mu.Lock()
	took := time.Duration(l.rnd.IntN(200)) * time.Millisecond
	l.mu.Unlock()
	select {
	case <-time.After(took):
	case <-ctx.Done():
		return loader.Value{}, ctx.Err()
	}
	if n == 0 {
		return loader.Value{}, loader.ErrAbsent
	}
	return loader.Value{Bytes: strconv.AppendInt(nil, int64(n), 10)}, nil
}

// change gives a row its next value, and returns it.
func (l *replicas) change(key string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows[key] = append(l.rows[key], time.Now())
	return len(l.rows[key])
}

// laggedWorld is a world with namespaces whose origins lag: "loads", whose sidecars load, and "apps".
type laggedWorld struct {
	*world
	rows   map[string]*replicas   // by namespace
	acked  map[string][]announced // by namespace and key, in their order
	counts map[string]int
	bad    func(format string, args ...any)
}

func (l *laggedWorld) count(what string) {
	l.mu.Lock()
	l.counts[what]++
	l.mu.Unlock()
}

// announced notes that an app has announced value n of a row, and that was acknowledged.
func (l *laggedWorld) announced(ns, key string, n int, by, how string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[ns+key] = append(l.acked[ns+key], announced{n, time.Now(), by})
	l.counts[how]++
}

// judge checks what a read that began at a time has got: value n; 0 is "there is none".
func (l *laggedWorld) judge(ns, key string, n int, kept bool, source wire.Source, by string, began time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts["reads"]++
	if kept {
		l.counts["reads of kept values"]++
	}
	for _, e := range l.acked[ns+key] {
		gone := began.Sub(e.at)
		if n >= e.n || gone <= 0 {
			continue
		}
		most := l.bound
		if e.by == by { // it reads its own writes
			most = 0
		}
		if !kept { // from a replica
			most = l.bound + l.rows[ns].most + 5*time.Second
		}
		if gone > most {
			l.bad("seed %d: %s reads %s %s = %d from %v, kept: %v; %d was announced through %s %v before",
				l.seed, by, ns, key, n, source, kept, e.n, e.by, gone)
			return
		}
	}
}

// ask makes a request through a process.
func (l *laggedWorld) ask(s *Sidecar, q wire.Request) (r wire.Reply, ok bool) {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	r, err := s.execute(ctx, &q)
	return r, err == nil
}

// found judges the answer to a read.
func (l *laggedWorld) found(q *wire.Request, r *wire.Reply, by string, began time.Time) {
	kept := r.TTLMS > 1 || r.Status == wire.OK && r.Source != wire.SourceOrigin // 1: of no use any more
	switch {
	case r.Status == wire.OK:
		n, err := strconv.Atoi(string(r.Value))
		if err != nil {
			l.bad("seed %d: %s %s is %q", l.seed, q.Namespace, q.Key, r.Value)
		}
		l.judge(string(q.Namespace), string(q.Key), n, kept, r.Source, by, began)
		if r.Source == wire.SourceOrigin {
			l.count(map[bool]string{true: "loads kept", false: "loads not kept"}[kept])
		}
	case r.Status == wire.Miss && r.Why == wire.Absent:
		l.judge(string(q.Namespace), string(q.Key), 0, kept, r.Source, by, began)
	}
}

// read reads a key at one of the doors, and loads it, if the apps do that.
func (l *laggedWorld) read(rnd *rand.Rand, ns, key string) {
	s, by, _ := l.any(rnd)
	if s == nil {
		return
	}
	q := wire.Request{Op: wire.OpGet, Namespace: []byte(ns), Key: []byte(key), TTLMS: wire.TTLDefault}
	switch door := rnd.IntN(8); {
	case ns == "apps" && door < 3:
		q.Op, q.Options = wire.OpMetaGet, wire.Claim|wire.Create
		q.LeaseMS, q.RenewMS = 2000, []uint32{0, 1000, wire.MaxTimeout}[rnd.IntN(3)]
	case ns == "apps" && door < 6:
		q.Op = wire.OpLease
	case door == 7:
		q.Options = wire.Fresh
	case door == 6:
		q.Options = wire.StaleOK
	}
	began := time.Now()
	r, ok := l.ask(s, q)
	if !ok {
		return
	}
	l.found(&q, &r, by, began)
	fill := wire.Request{Op: wire.OpSet, Namespace: q.Namespace, Key: q.Key, Mode: wire.ModeCAS, TTLMS: wire.TTLDefault}
	how := "claims"
	switch {
	case q.Op == wire.OpMetaGet && r.Claim == wire.ClaimWon:
		if fill.Compare = uint64(r.Number); r.Status == wire.OK {
			how = "renewals"
		}
	case r.Status == wire.Lease:
		how, fill.Op, fill.Mode, fill.Token = "tokens", wire.OpFill, 0, r.Token
	default:
		return
	}
	l.count(how)
	v, err := l.rows[ns].Load(context.Background(), q.Key)
	if err != nil {
		v.Bytes = []byte("0")
	}
	fill.Value = v.Bytes
	if rnd.IntN(2) == 0 {
		fill.TTLMS = 300 + rnd.Int64N(3000)
	}
	if r, ok := l.ask(s, fill); ok && r.Status == wire.OK {
		l.count(how + " kept")
	}
}

// announce tells of value n of a row, at one of the doors. It reports whether that was acknowledged.
func (l *laggedWorld) announce(rnd *rand.Rand, ns, key string, n int) bool {
	s, by, _ := l.any(rnd)
	if s == nil {
		return false
	}
	q := wire.Request{Namespace: []byte(ns), Key: []byte(key), Value: strconv.AppendInt(nil, int64(n), 10), TTLMS: wire.TTLDefault}
	del := func(o wire.Options) {
		q.Op, q.Keys, q.Options, q.Key, q.Value = wire.OpDelete, [][]byte{[]byte(key)}, o, nil, nil
	}
	how := ""
	switch door := rnd.IntN(14); {
	case door < 3:
		how = "deletions"
		del(0)
	case door < 4:
		how = "soft deletions"
		del(wire.Soft)
	case door < 5:
		how, q.Op = "removals from the cache", wire.OpMetaGet
		q.Options, q.Value = wire.CacheOnly, nil
	case door < 7:
		how, q.Op = "sets", wire.OpSet
	case door < 10:
		how, q.Op, q.TTLMS = "sets that end soon", wire.OpSet, 100+rnd.Int64N(1500)
	case door < 12:
		how, q.Op, q.Value = "increments", wire.OpIncr, nil
		q.Delta, q.Create, q.Initial, q.TTLMS = 1, true, int64(n), 100+rnd.Int64N(3000)
		r, ok := l.ask(s, wire.Request{Op: wire.OpGet, Namespace: q.Namespace, Key: q.Key, Options: wire.NoLoad})
		if ok && r.Status == wire.OK {
			if string(r.Value) != strconv.Itoa(n-1) {
				return false // the increment would give another value
			}
			q.Create, q.Compare = false, r.Version
		}
	case door < 13:
		return rnd.IntN(3) == 0 && l.flush(s, by, ns, key, n, rnd.IntN(2) == 0)
	default:
		how, q.Op, q.Mode = "sets where there is a value", wire.OpSet, wire.ModeReplace
	}
	r, ok := l.ask(s, q)
	if ok && len(r.Items) == 1 {
		r = r.Items[0]
	}
	if !ok || r.Status.IsError() || q.Op != wire.OpDelete && q.Op != wire.OpMetaGet && r.Status != wire.OK {
		return false
	}
	if q.Op == wire.OpIncr && r.Number != int64(n) {
		return false
	}
	l.announced(ns, key, n, by, how)
	return true
}

// flush flushes a namespace, everywhere or on every host for itself.
func (l *laggedWorld) flush(s *Sidecar, by, ns, key string, n int, local bool) bool {
	if !local {
		ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
		defer cancel()
		if s.Flush(ctx, ns, cachesidecar.FlushOptions{}) != nil {
			return false
		}
		l.announced(ns, key, n, by, "flushes")
		return true
	}
	owner := s.engine.Node.View().AssignedOwner(s.engine.Namespaces.Hash([]byte(ns), []byte(key)).Partition())
	if owner == nil || owner.Process != s.engine.Node.Self() {
		return false
	}
	p := s.engine.Namespaces.Hash([]byte(ns), []byte(key)).Partition()
	epoch := s.engine.Node.OwnershipEpoch(p)
	if epoch == 0 || s.engine.Handoff.Incoming[p].Load() != nil || s.Flush(context.Background(), ns, cachesidecar.FlushOptions{Local: true}) != nil {
		return false
	}
	if s.engine.Node.CheckPause(s.engine.Clock.Read().Boot); s.engine.Node.OwnershipEpoch(p) != epoch {
		return false // it is not known who has heard of it
	}
	l.announced(ns, key, n, by, "flushes of the owner")
	return true
}

// evict evicts what a host has of the namespaces.
func (l *laggedWorld) evict(s *Sidecar) {
	leave, open := s.parts.Host.Enter()
	if !open {
		return
	}
	defer leave()
	for name := range l.rows {
		ns, store := s.engine.Namespaces.Lookup([]byte(name)), s.engine.Store
		before := store.NamespaceStats(ns.ID).Entries
		limits := segment.Limits{Stale: time.Minute, Grace: time.Second}
		store.SetLimits(ns.ID, 1, limits)
		store.Shrink(ns.ID, s.engine.Clock.Read().Boot)
		store.SetLimits(ns.ID, 0, limits)
		if before > store.NamespaceStats(ns.ID).Entries {
			l.count("evictions")
		}
	}
}

// noteLoad counts the loads of keys that have a value.
func (l *laggedWorld) noteLoad(key []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, v := range l.nodes {
		s := v.s
		if s == nil {
			continue
		}
		if leave, open := s.parts.Host.Enter(); open {
			ns := s.engine.Namespaces.Lookup([]byte("loads"))
			if _, live := s.engine.Store.Peek(ns.Key(key), s.engine.Clock.Read().Boot); live && owns(s, "loads", string(key)) {
				l.counts["early refreshes"]++
			}
			leave()
		}
	}
}

// load changes rows and reads them, until ctx ends.
func (l *laggedWorld) load(ctx context.Context, wg *sync.WaitGroup) {
	seed, stream := l.seed, uint64(100)
	do := func(f func(*rand.Rand)) {
		stream++
		rnd := rand.New(rand.NewPCG(seed, stream))
		wg.Go(func() {
			for ctx.Err() == nil {
				f(rnd)
			}
		})
	}
	for ns, rows := range l.rows {
		for i := range l.keys {
			key := fmt.Sprint("row", i)
			do(func(rnd *rand.Rand) {
				pauseFor(ctx, time.Duration(rnd.IntN(4000))*time.Millisecond)
				if rnd.IntN(2) == 0 { // until all is cached, and all barriers are over
					pauseFor(ctx, rows.most+3*time.Second)
				}
				n := rows.change(key)
				for ctx.Err() == nil && !l.announce(rnd, ns, key, n) {
					pauseFor(ctx, 20*time.Millisecond)
				}
			})
		}
		for range 3 {
			do(func(rnd *rand.Rand) {
				pauseFor(ctx, time.Duration(rnd.IntN(60))*time.Millisecond)
				l.read(rnd, ns, fmt.Sprint("row", rnd.IntN(len(l.keys))))
			})
		}
	}
	do(func(rnd *rand.Rand) {
		pauseFor(ctx, time.Duration(rnd.IntN(3000))*time.Millisecond)
		if s, _, _ := l.any(rnd); s != nil {
			l.evict(s)
		}
	})
}

// handed counts the partitions of hosts that began lately and whose barriers were handed over.
func (l *laggedWorld) handed() {
	for _, v := range l.nodes {
		if v.s == nil || v.paused {
			continue
		}
		e := v.s.engine
		for p := range uint16(kv.Partitions) {
			if e.Node.OwnershipEpoch(p) != 0 && e.Clock.Read().Boot-e.Handoff.BegunAt(p) < time.Second &&
				!e.Barriers.Barred(e.Namespaces.Lookup([]byte("loads")), kv.Key{Hash: kv.Hash(p) << 50}, e.Clock.Read().Boot) {
				l.counts["partitions handed over"]++
			}
		}
	}
}

// laggedRun is one run.
func laggedRun(t *testing.T, seed uint64, bad func(string, ...any)) (l *laggedWorld) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, seed, 3+int(seed/2%2))
		l = &laggedWorld{world: w, rows: map[string]*replicas{}, acked: map[string][]announced{}, counts: map[string]int{}, bad: bad}
		w.keys = w.keys[:6]
		if seed%2 == 1 {
			w.voters = []string{"n0", "n1", "n2"}
		}
		w.events, w.keeps = []int{0, 0, 64}[w.rnd.IntN(3)], keepsIn(seed)
		if w.noRelay = w.rnd.IntN(3) == 0; w.keeps {
			w.events *= 64
		}
		w.namespaces = map[string]Namespace{}
		for name, lag := range map[string]time.Duration{"loads": 4 * time.Second, "apps": 2 * time.Second} {
			rows := &replicas{rnd: rand.New(rand.NewPCG(seed, uint64(lag))), most: lag - 200*time.Millisecond, rows: map[string][]time.Time{}}
			ttl, early, stale := []time.Duration{time.Hour, 6 * time.Second}[w.rnd.IntN(2)], float64(5*w.rnd.IntN(3)), time.Minute
			ns := Namespace{ReplicaLag: lag, DefaultTTL: &ttl, StaleLimit: &stale}
			if name == "loads" {
				ns.Origin, ns.RefreshEarly, ns.StaleWhileRevalidate = loader.Custom{Source: rows}, &early, time.Second
			}
			if name == "loads" {
				rows.begin = l.noteLoad
			}
			l.rows[name], w.namespaces[name] = rows, ns
		}
		w.startAll()
		w.agreed(20 * time.Second)
		time.Sleep(6 * time.Second)
		ctx, stop := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		l.load(ctx, &wg)
		time.Sleep(4 * time.Second)
		for range 5 {
			if w.rnd.IntN(2) == 0 {
				w.fault()
			} else {
				w.restartFault()
				w.mu.Lock()
				w.seen["fault: started again"]++
				w.mu.Unlock()
			}
			l.mu.Lock()
			l.handed()
			l.mu.Unlock()
			time.Sleep(w.upTo(6000))
		}
		time.Sleep(6 * time.Second)
		stop()
		wg.Wait()
		w.killAll()
	})
	return l
}

// leastLagged is what a hundred runs must have seen; fewer need a quarter of their part.
var leastLagged = map[string]int{
	"deletions": 1000, "soft deletions": 300, "removals from the cache": 60, "sets": 600, "sets that end soon": 1000,
	"sets where there is a value": 100, "increments": 700, "flushes": 40, "flushes of the owner": 10,
	"claims": 150, "renewals": 1500, "renewals kept": 1000, "tokens": 3000, "tokens kept": 1000, "early refreshes": 200,
	"evictions": 1500, "loads kept": 500, "loads not kept": 20_000, "partitions handed over": 150_000,
	"reads of kept values": 50_000, "fault: started again": 100, "fault: restarted": 5, "fault: two restarted": 2,
	"fault: drained": 5, "fault: moved": 5, "fault: killed": 5,
}

// TestVirtualLagRandom makes short runs in which replicas lag.
func TestVirtualLagRandom(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 10*time.Second)
	runs, seed := max(1, *randomRuns), firstSeed()
	var mu sync.Mutex
	seen := map[string]int{}
	var next atomic.Int64
	t.Run("runs", func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				for n := next.Add(1) - 1; n < int64(runs) && !t.Failed(); n = next.Add(1) - 1 {
					l := laggedRun(t, seed+uint64(n), t.Errorf)
					mu.Lock()
					for name, n := range l.counts {
						seen[name] += n
					}
					for name, n := range l.seen {
						if len(name) > 6 && name[:6] == "fault:" {
							seen[name] += int(n)
						}
					}
					mu.Unlock()
				}
			})
		}
	})
	t.Logf("%d runs from seed %d on have seen %v", runs, seed, seen)
	for name, n := range leastLagged {
		want := n * runs / 100
		if runs < 100 {
			want /= 4
		}
		if runs >= 20 && !t.Failed() && seen[name] < want {
			t.Errorf("only %d %s in %d runs, want %d", seen[name], name, runs, want)
		}
	}
}
