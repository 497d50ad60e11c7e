package hosts

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Rows that change at a database without any DELETE of an app, while a feed tells of them, under
// faults of the hosts and of the feed. A read must not return a value that readers of the database
// have not seen for max_lag and B.

// rowFeed is the feed of a database. A commit is in its log before readers see it.
type rowFeed struct {
	db *database

	mu        sync.Mutex
	log       []*loader.Transaction
	more      chan struct{} // closed when there is more
	seen      map[uint64]bool
	forgotten loader.Position      // where the slot is
	timeline  int                  // of the server
	slots     int                  // that were made; zero: there is none
	gaps      []loader.Gap         // of streams
	open      bool                 // one stream at a time
	down      bool                 // each question fails
	silent    bool                 // the stream brings nothing
	brings    func()               // called before the stream brings something
	ended     map[string]time.Time // when readers ceased to see a value

	catalog int          // counts what its rows were written by
	changes map[int]bool // of the catalog, that have not ended
}

var errDown = errors.New("the server is down")

func newRowFeed(db *database) *rowFeed {
	return &rowFeed{
		db: db, more: make(chan struct{}), seen: map[uint64]bool{}, ended: map[string]time.Time{}, changes: map[int]bool{},
	}
}

// commit gives a row another value, which readers see after a while.
func (f *rowFeed) commit(key, before, value string, unseen time.Duration) {
	t := &loader.Transaction{Rows: 1}
	t.Delete(DefaultNamespace, key)
	f.mu.Lock()
	f.append(t)
	f.mu.Unlock()
	time.Sleep(unseen)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.db.set(key, []byte(value))
	f.seen[t.ID] = true
	f.ended[before] = time.Now()
}

// commitUnsent does the same while the catalog has changed, so that the log does not have it. The change is undone
// in the same transaction; or its own commit hangs before and after, which the log goes by and readers do not.
func (f *rowFeed) commitUnsent(key, before, value string, hangs time.Duration) {
	f.mu.Lock()
	f.catalog++
	change := f.catalog
	f.changes[change] = true
	f.mu.Unlock()
	time.Sleep(hangs)
	f.mu.Lock()
	f.db.set(key, []byte(value))
	f.ended[before] = time.Now()
	f.mu.Unlock()
	time.Sleep(hangs)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.catalog++
	delete(f.changes, change)
}

// append gives a transaction its place in the log. The lock is held.
func (f *rowFeed) append(t *loader.Transaction) *loader.Transaction {
	t.ID = uint64(len(f.log) + 1)
	t.End = loader.Position(10 * t.ID)
	f.log = append(f.log, t)
	close(f.more)
	f.more = make(chan struct{})
	return t
}

// gone returns for how long readers of the database have not seen a value.
func (f *rowFeed) gone(value string, now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if at, ok := f.ended[value]; ok {
		return now.Sub(at)
	}
	return 0
}

func (f *rowFeed) set(down, silent bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down, f.silent = down, silent
}

func (f *rowFeed) Kind() string                            { return "rows" }
func (f *rowFeed) Open() (loader.Feed, error)              { return f, nil }
func (f *rowFeed) Namespaces() []string                    { return []string{DefaultNamespace, "later"} }
func (f *rowFeed) Check(context.Context) ([]string, error) { return nil, nil }
func (f *rowFeed) SQL() string                             { return "" }
func (f *rowFeed) Secrets() []string                       { return nil }

// Stream goes on with the slot, unless it has forgotten more than is certified, or the server is another one.
func (f *rowFeed) Stream(_ context.Context, gap loader.Gap, from loader.Checkpoint) (loader.FeedStream, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.down:
		return nil, errDown
	case f.open:
		return nil, errors.New("the slot is in use")
	}
	var timeline, catalog int
	var at loader.Position
	_, _ = fmt.Sscanf(string(from), "%d/%d/%d", &timeline, &at, &catalog)
	switch {
	case gap != "":
	case f.slots == 0:
		gap = "there is no slot"
	case from != "" && (timeline != f.timeline || f.forgotten > at):
		gap = "the slot is another one"
	case from != "" && catalog != f.catalog:
		gap = "the catalog has changed"
	}
	f.open = true
	s := &rowStream{
		rowFeed: f, gap: gap, confirmed: f.forgotten, catalog: f.catalog, pastChanges: maps.Clone(f.changes),
	}
	if gap != "" {
		s.past, s.confirmed = len(f.log), f.end()
	}
	for s.next < len(f.log) && f.log[s.next].End <= s.confirmed {
		s.next++
	}
	return s, nil
}

// end returns where the log ends. The lock is held.
func (f *rowFeed) end() loader.Position { return loader.Position(10 * len(f.log)) }

type rowStream struct {
	*rowFeed
	gap         loader.Gap
	past        int          // transactions that are not in the stream
	pastChanges map[int]bool // of the catalog, that the stream goes by, and that had not ended when it began
	confirmed   loader.Position
	next        int
	closed      bool
	catalog     int // at the last look
}

func (s *rowStream) Gap() loader.Gap  { return s.gap }
func (s *rowStream) KeepAlive() error { return nil }

// Nudge implements loader.FeedStream: a transaction commits that changes nothing.
func (s *rowStream) Nudge(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.append(&loader.Transaction{})
	s.seen[t.ID] = true
	return nil
}

func (s *rowStream) Checkpoint() loader.Checkpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	return loader.Checkpoint(fmt.Sprintf("%d/%d/%d", s.timeline, s.confirmed, s.catalog))
}

func (s *rowStream) CloseGap(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return errDown
	}
	s.gaps = append(s.gaps, s.gap)
	s.slots, s.forgotten = s.slots+1, s.confirmed
	return nil
}

func (s *rowStream) GiveUp(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return errDown
	}
	s.slots = 0
	return nil
}

// Forget implements loader.FeedStream.
func (s *rowStream) Forget(known loader.Checkpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var timeline, catalog int
	var at loader.Position
	if _, err := fmt.Sscanf(string(known), "%d/%d/%d", &timeline, &at, &catalog); err == nil {
		s.forgotten = max(s.forgotten, at)
	}
}

func (s *rowStream) Receive(ctx context.Context) (*loader.Transaction, error) {
	s.mu.Lock()
	more := s.more
	switch {
	case s.down:
		s.mu.Unlock()
		return nil, errDown
	case s.next < len(s.log) && !s.silent:
		if brings := s.brings; brings != nil {
			s.mu.Unlock()
			brings()
			s.mu.Lock()
		}
		defer s.mu.Unlock()
		t := loader.Transaction{}
		t.Join(s.log[s.next])
		t.ID, t.End = s.log[s.next].ID, s.log[s.next].End
		s.next++
		return &t, nil
	}
	s.mu.Unlock()
	select {
	case <-more:
	case <-time.After(500 * time.Millisecond):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return nil, nil
}

func (s *rowStream) View(context.Context) (loader.View, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return loader.View{}, errDown
	}
	v := rowView{maps.Clone(s.seen), maps.Clone(s.changes), s.past, s.pastChanges}
	return loader.View{Snapshot: v, Now: time.Now(), End: s.end(), Inserted: s.end()}, nil
}

func (s *rowStream) FindGap(context.Context) (loader.Gap, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.down:
		return "", errDown
	case s.catalog != s.rowFeed.catalog:
		s.catalog = s.rowFeed.catalog
		return "the catalog has changed", nil
	}
	return "", nil
}

func (s *rowStream) Confirm(at loader.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.confirmed = max(s.confirmed, at)
}

func (s *rowStream) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed, s.open = true, false
	}
}

// Left implements loader.FeedStream.
func (s *rowStream) LeftBehind(context.Context) ([]string, error) { return nil, nil }

// rowView is the transactions that a reader sees, and the changes of the catalog that it does not see.
type rowView struct {
	seen        map[uint64]bool
	open        map[int]bool
	past        int
	pastChanges map[int]bool
}

func (v rowView) Sees(t *loader.Transaction) bool   { return v.seen[t.ID] }
func (v rowView) Outlives(was loader.Snapshot) bool { return v.ended(was.(rowView).open) }

func (v rowView) ended(changes map[int]bool) bool {
	for c := range changes {
		if v.open[c] {
			return false
		}
	}
	return true
}

func (v rowView) SeesPast() bool {
	for id := range v.past {
		if !v.seen[uint64(id+1)] {
			return false
		}
	}
	return v.ended(v.pastChanges)
}

// laggard is a world whose values come from a database with a feed.
type laggard struct {
	*world
	feed   *rowFeed
	maxLag time.Duration
	bad    func(format string, args ...any)

	counts struct{ reads, cached, old, stale, late, moved, young, gaps int }
}

// withFeed runs a test with three hosts whose default namespace has a database with a feed. edit, if it is
// not nil, changes the world before.
func withFeed(
	t *testing.T, seed uint64, voted bool, bad func(string, ...any), edit func(w *world), f func(l *laggard),
) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, seed, 3)
		if w.keys = w.keys[:6]; voted {
			w.voters = []string{"n0", "n1", "n2"}
		}
		w.noRelay = seed%3 == 1
		w.origin = newDatabase(always(5 * time.Millisecond))
		w.ns.StaleWhileRevalidate = time.Minute
		if edit != nil {
			edit(w)
		}
		l := &laggard{world: w, feed: newRowFeed(w.origin), maxLag: 4 * w.bound, bad: bad}
		for i := range w.keys {
			w.origin.set(fmt.Sprint("row", i), []byte(fmt.Sprint(i, ".0")))
		}
		for _, v := range w.nodes {
			v.edit = func(c *Config) { c.Feeds = map[string]Feed{"rows": {Source: l.feed, MaxLag: l.maxLag}} }
			v.start()
		}
		w.agreed(15 * time.Second)
		time.Sleep(5 * time.Second)
		f(l)
		w.net.Heal()
		for _, v := range w.nodes {
			v.clock.thaw()
			if v.s != nil {
				v.kill()
			}
		}
		time.Sleep(time.Minute)
	})
}

// read reads a row through a host, and checks what it gets.
func (l *laggard) read(s *Sidecar, by, row string, stale bool) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	v, err := s.Get(ctx, DefaultNamespace, row, cachesidecar.GetOptions{StaleOK: stale})
	gone := time.Duration(0)
	if err == nil {
		gone = l.feed.gone(string(v.Value), began)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.reads++
	switch {
	case err != nil:
	case v.Stale:
		l.counts.stale++
	case gone > l.maxLag+l.bound:
		l.bad("seed %d: %s read %s from %s (%s), which no reader of the database had seen for %v",
			l.seed, by, v.Value, row, v.Source, gone)
	default:
		if v.Source != "origin" {
			l.counts.cached++
		}
		if gone > l.bound {
			l.counts.old++
		}
	}
}

// load changes rows, and reads them through all hosts, until ctx ends.
func (l *laggard) load(ctx context.Context, wg *sync.WaitGroup) {
	for i := range l.keys {
		rnd := rand.New(rand.NewPCG(l.seed, uint64(100+i)))
		wg.Go(func() {
			row, value := fmt.Sprint("row", i), fmt.Sprint(i, ".0")
			for n := 1; ctx.Err() == nil; n++ {
				next := fmt.Sprint(i, ".", n)
				switch unseen := time.Duration(rnd.IntN(300)) * time.Millisecond; rnd.IntN(12) {
				case 0:
					l.feed.commitUnsent(row, value, next, 0)
				case 1:
					l.feed.commitUnsent(row, value, next, 40*unseen)
				default:
					l.feed.commit(row, value, next, unseen)
				}
				value = next
				pauseFor(ctx, time.Duration(rnd.IntN(3000))*time.Millisecond)
				if rnd.IntN(3) == 0 { // what is cached may be old by more than the bound
					pauseFor(ctx, 2*(l.maxLag+l.bound))
				}
			}
		})
	}
	for i := range 3 {
		rnd := rand.New(rand.NewPCG(l.seed, uint64(1000+i)))
		wg.Go(func() {
			for ctx.Err() == nil {
				if s, by, _ := l.any(rnd); s != nil {
					l.read(s, by, fmt.Sprint("row", rnd.IntN(len(l.keys))), rnd.IntN(4) == 0)
					if _, late, _ := s.engine.Node.FeedLag("rows"); late {
						l.mu.Lock()
						l.counts.late++
						l.mu.Unlock()
					}
				}
				pauseFor(ctx, time.Duration(rnd.IntN(60))*time.Millisecond)
			}
		})
	}
}

// lagging is a run with faults.
func lagging(t *testing.T, seed uint64, bad func(string, ...any)) (l *laggard) {
	withFeed(t, seed, seed%2 == 1, bad, func(w *world) { w.keeps = keepsIn(seed) }, func(w *laggard) {
		l = w
		ctx, stop := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		w.load(ctx, &wg)
		for range 3 {
			switch w.rnd.IntN(4) {
			case 0, 1:
				w.fault()
			case 2:
				down := w.rnd.IntN(2) == 0
				w.feed.set(down, !down)
				time.Sleep(w.upTo(20_000))
				w.feed.set(false, false)
			case 3:
				w.moved(w.rnd.IntN(2) == 0, w.upTo(12_000))
			}
			time.Sleep(w.upTo(10_000))
		}
		time.Sleep(w.bound)
		stop()
		wg.Wait()
		w.counts.gaps = len(w.feed.gaps)
	})
	return l
}

// lateCopy: a host has a copy when the feed ceases, and the row changes. When the feed goes on, that
// host hears of the certificate, and not of the deletion, since the link to the owner is cut just then:
// its lease lasts a little longer. The copy must have ended when the owner became late.
func lateCopy(t *testing.T, bad func(string, ...any)) {
	withFeed(t, 1, false, bad, nil, func(l *laggard) {
		owner := l.ownerOf("row0")
		leader := l.leader()
		if leader == owner {
			t.Fatal("give another seed: the leader owns the row")
		}
		var reader *vnode
		for _, v := range l.nodes {
			if v != owner && v != leader {
				reader = v
			}
		}
		for range 3 {
			l.read(reader.s, reader.name, "row0", false)
			time.Sleep(10 * time.Millisecond)
		}
		if l.counts.cached == 0 {
			t.Fatal("there is no copy")
		}
		l.feed.set(true, false)
		time.Sleep(time.Second)
		l.feed.commit("row0", "0.0", "0.1", 0)
		time.Sleep(l.maxLag + l.bound + time.Second)
		l.feed.brings = sync.OnceFunc(func() { l.net.Cut(owner.ip, reader.ip) })
		l.feed.set(false, false)
		for range 4000 {
			l.read(reader.s, reader.name, "row0", false)
			time.Sleep(time.Millisecond)
		}
	})
}

// leader returns the host that follows the feed.
func (l *laggard) leader() *vnode {
	if v := l.leads(); v != nil {
		return v
	}
	panic("no host leads")
}

// leads returns the host that is to follow the feed, or nil.
func (l *laggard) leads() *vnode {
	for _, v := range l.nodes {
		if v.s == nil {
			continue
		}
		if leads, _ := v.s.engine.Leads("rows"); leads {
			return v
		}
	}
	return nil
}

// TestVirtualLateCopy checks that copies end which other hosts have of the namespaces of a late feed.
func TestVirtualLateCopy(t *testing.T) { lateCopy(t, t.Errorf) }

// late has the feed fail, and waits until all hosts are late.
func (l *laggard) late() {
	l.feed.set(true, false)
	time.Sleep(l.maxLag + l.bound)
	for _, v := range l.nodes {
		if _, late, _ := v.s.engine.Node.FeedLag("rows"); !late {
			l.t.Errorf("%s is not late", v.name)
		}
	}
}

// TestVirtualLateLoad checks that a read at a late host does not join a load that began before the row
// changed, although no deletion tells of it.
func TestVirtualLateLoad(t *testing.T) {
	slow := func(w *world) {
		w.origin = newDatabase(always(12 * time.Second)) // before it reads the row, and after
		w.ns.Limits.Timeout = 30 * time.Second
	}
	withFeed(t, 1, false, t.Errorf, slow, func(l *laggard) {
		owner := l.ownerOf("row0")
		l.late()
		l.read(owner.s, owner.name, "row0", false) // begins a load, and does not wait for it
		time.Sleep(11*time.Second + 100*time.Millisecond)
		l.feed.commit("row0", "0.0", "0.1", 0)
		time.Sleep(11*time.Second + 200*time.Millisecond)
		l.read(owner.s, owner.name, "row0", false)
	})
}

// TestVirtualLateToken checks the same of a token, and that what is filled is not kept.
func TestVirtualLateToken(t *testing.T) {
	apps := func(w *world) { w.apps, w.ns.LeaseTime = true, time.Minute }
	withFeed(t, 1, false, t.Errorf, apps, func(l *laggard) {
		owner := l.ownerOf("row0")
		l.late()
		r := owner.do(&wire.Request{Op: wire.OpLease, Key: []byte("row0")})
		if r.Status != wire.Lease {
			t.Fatalf("no token: %v", r.Err())
		}
		time.Sleep(l.maxLag + l.bound)
		got := make(chan wire.Reply)
		go func() { got <- owner.do(&wire.Request{Op: wire.OpLease, Key: []byte("row0"), TimeoutMS: 5000}) }()
		time.Sleep(time.Second)
		f := owner.do(&wire.Request{Op: wire.OpFill, Key: []byte("row0"), Token: r.Token, Value: []byte("0.0")})
		if f.Status != wire.NotStored {
			t.Errorf("the fill: %v", f.Status)
		}
		if second := <-got; second.Status != wire.Lease {
			t.Errorf("a LEASE that began later than max_lag and B after the token: %v, %q", second.Status, second.Value)
		}
		r = owner.do(&wire.Request{Op: wire.OpLease, Key: []byte("row1")})
		f = owner.do(&wire.Request{Op: wire.OpFill, Key: []byte("row1"), Token: r.Token, Value: []byte("1.0")})
		if f.Status != wire.NotStored || !strings.Contains(string(f.Message), "later than max_lag") {
			t.Errorf("the fill of a young token: %v, %s", f.Status, f.Message)
		}
	})
}

// TestVirtualLateStale checks what a late host answers to a read that accepts stale values: the value, for
// as long as the namespace says, and for a key that the origin did not have the truth.
func TestVirtualLateStale(t *testing.T) {
	hour := time.Hour
	withFeed(t, 1, false, t.Errorf, func(w *world) { w.ns.NegativeTTL = &hour }, func(l *laggard) {
		owner, other := l.ownerOf("row0"), l.ownerOf("none")
		is(t, "in time", owner.get("row0", wire.StaleOK), wire.OK, "0.0")
		is(t, "in time", other.get("none", wire.StaleOK), wire.Miss, "")
		l.late()
		is(t, "late", owner.get("row0", wire.StaleOK), wire.Stale, "0.0")
		is(t, "late", other.get("none", wire.StaleOK), wire.Miss, "")
		is(t, "late", owner.get("row0", wire.NoLoad), wire.Miss, "")
		time.Sleep(l.ns.StaleWhileRevalidate)
		is(t, "late for long", owner.get("row0", wire.StaleOK), wire.OK, "0.0")
		l.feed.set(false, false)
		time.Sleep(5 * time.Second)
		if r := owner.get("row0", 0); r.Source != wire.SourceL2 {
			t.Errorf("in time again: the value comes from %v", r.Source)
		}
	})
}

// TestVirtualLateAlone checks that a host that is alone becomes late, and in time again. What is loaded at
// the start waits until it is in time. While it is late, its filter of existing keys does not count, and
// nothing is kept of a namespace that gets its slot then.
func TestVirtualLateAlone(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 1)
		w.origin = newDatabase(always(time.Millisecond))
		w.origin.set("row0", []byte("0.0"))
		l := &laggard{world: w, feed: newRowFeed(w.origin), maxLag: 4 * w.bound}
		list := loader.List{Lister: w.origin}
		w.ns.WarmOnStart = &Warm{Rate: 100, List: list}
		w.ns.ExistingKeys = &ExistingKeys{Keys: 100, FalsePositives: 1e-6, List: list}
		l.feed.set(true, false)
		v := w.nodes[0]
		v.edit = func(c *Config) {
			c.Bind, c.Join, c.Insecure = "", nil, false
			c.Feeds = map[string]Feed{"rows": {Source: l.feed, MaxLag: l.maxLag}}
		}
		v.start()
		time.Sleep(10 * time.Second)
		is(t, "late at the start", v.get("row0", wire.NoLoad), wire.Miss, "")
		l.feed.set(false, false)
		time.Sleep(30 * time.Second)
		is(t, "in time", v.get("row0", wire.NoLoad), wire.OK, "0.0")
		absent(t, "a key that is not there", v.get("row7", 0))
		l.late()
		l.feed.commit("row7", "", "7.0", 0)
		is(t, "a new row", v.get("row7", 0), wire.OK, "7.0")
		in := func(q *wire.Request) wire.Reply {
			q.Namespace, q.Key, q.TTLMS = []byte("later"), []byte("k"), wire.TTLDefault
			r, _ := v.s.execute(t.Context(), q) // the reply has the error too
			return r
		}
		r := in(&wire.Request{Op: wire.OpLease})
		if r = in(&wire.Request{Op: wire.OpFill, Token: r.Token, Value: []byte("v")}); r.Status != wire.NotStored ||
			!strings.Contains(string(r.Message), "later than max_lag") {
			t.Errorf("a fill in a namespace that has its slot since then: %v, %s", r.Status, r.Message)
		}
		is(t, "late", v.get("row0", wire.NoLoad), wire.Miss, "")
		is(t, "late", v.get("row0", 0), wire.OK, "0.0")
		is(t, "late", v.get("row0", wire.NoLoad), wire.Miss, "")
		l.feed.set(false, false)
		time.Sleep(5 * time.Second)
		is(t, "in time again", v.get("row0", wire.NoLoad), wire.OK, "0.0")
		v.kill()
		time.Sleep(time.Minute)
	})
}

// TestVirtualMaxLag checks that no read returns a value that the database has not had for max_lag and B,
// whatever fails.
func TestVirtualMaxLag(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 10*time.Second)
	runs := 2
	switch {
	case *randomRuns > 0:
		runs = max(4, *randomRuns/3)
	case testenv.Long():
		runs = 20
	}
	seed := firstSeed()
	var reads, cached, old, stale, late, moved, young, gaps int
	for n := range uint64(runs) {
		c := lagging(t, seed+n, t.Errorf).counts
		reads, cached, old, stale, late = reads+c.reads, cached+c.cached, old+c.old, stale+c.stale, late+c.late
		moved, young, gaps = moved+c.moved, young+c.young, gaps+c.gaps
	}
	t.Logf("%d runs from seed %d on: %d reads, %d cached, %d old by more than B, %d stale, %d at late hosts; "+
		"slots moved %d times, %d machines started meanwhile, %d beginnings",
		runs, seed, reads, cached, old, stale, late, moved, young, gaps)
	if cached < 500*runs || late < 50*runs || old == 0 || moved < runs/4 || gaps < runs+moved/2 {
		t.Errorf("that proves little")
	}
	if young < runs/25 || runs >= 100 && young < runs/8 { // fewer runs differ more
		t.Errorf("that proves little: too few machines are young")
	}
}
