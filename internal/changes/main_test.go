package changes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// server is a loader.Feed that a test moves. It sends again what was not confirmed.
type server struct {
	mu        sync.Mutex
	log       []string // what was done, in order
	sent      []*loader.Transaction
	more      chan struct{} // closed when there is more
	confirmed loader.Position
	hidden    map[uint64]bool // transactions that no reader sees
	streams   []*stream
	asked     []time.Time  // when Stream was called
	began     []loader.Gap // of streams

	lost    loader.Gap // of the next stream, whatever is asked for
	refuses error      // Stream returns it
	past    bool       // readers see all that is not in the stream
	broken  loader.Gap
	logEnd  loader.Position
	nudged  int
	fails   error // View and Broken return it
	left    []string

	leftFails error // Left returns it
	maxLag    time.Duration
	at        loader.Checkpoint // of each stream
	begun     time.Time
	heard     loader.Checkpoint // what was certified last
	forgotten []loader.Checkpoint
}

// heardIn is the time in which all hosts hear of a certificate.
const heardIn = 1500 * time.Millisecond

func newServer() *server {
	return &server{
		begun: time.Now(), more: make(chan struct{}), hidden: map[uint64]bool{}, past: true, at: "s", heard: "s",
	}
}

// do moves the server.
func (s *server) do(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *server) note(text string) { s.log = append(s.log, text) }

// send commits a transaction, which readers see.
func (s *server) send(t *loader.Transaction) *loader.Transaction { return s.commit(t, false) }

// sendHidden commits a transaction that no reader sees yet.
func (s *server) sendHidden(t *loader.Transaction) *loader.Transaction { return s.commit(t, true) }

func (s *server) commit(t *loader.Transaction, hidden bool) *loader.Transaction {
	s.do(func() {
		if t.ID = uint64(len(s.sent) + 1); t.End == 0 {
			t.End = loader.Position(10 * t.ID)
		}
		if len(t.Changed) > 0 {
			t.Rows = 1
		}
		if hidden {
			s.hidden[t.ID] = true
		}
		s.sent = append(s.sent, t)
		close(s.more)
		s.more = make(chan struct{})
	})
	return t
}

// show has readers see transactions.
func (s *server) show(list ...*loader.Transaction) {
	s.do(func() {
		for _, t := range list {
			delete(s.hidden, t.ID)
		}
	})
}

// changed returns a transaction that has changed keys of the namespace users.
func changed(keys ...string) *loader.Transaction {
	t := &loader.Transaction{}
	for _, key := range keys {
		t.Delete("users", key)
	}
	return t
}

// numbered returns a transaction that has changed the keys from one number to another.
func numbered(namespace string, from, to int) *loader.Transaction {
	t := &loader.Transaction{}
	for i := from; i < to; i++ {
		t.Delete(namespace, fmt.Sprint(i))
	}
	return t
}

func (s *server) Namespaces() []string                    { return []string{"pages", "users"} }
func (s *server) Check(context.Context) ([]string, error) { return nil, nil }
func (s *server) SQL() string                             { return "" }
func (s *server) Secrets() []string                       { return nil }

var errInUse = errors.New("the slot is in use")

func (s *server) Stream(_ context.Context, gap loader.Gap, from loader.Checkpoint) (loader.FeedStream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, time.Now())
	if s.refuses != nil {
		return nil, s.refuses
	}
	if n := len(s.streams); n > 0 && !s.streams[n-1].closed {
		return nil, errInUse
	}
	if gap == "" {
		gap = s.lost
	}
	if from != "" && from != s.at {
		gap = "another checkpoint"
	}
	m := &stream{server: s, gap: gap, ends: make(chan error, 1)}
	for m.next < len(s.sent) && (gap != "" || s.sent[m.next].End <= s.confirmed) {
		m.next++
	}
	s.streams = append(s.streams, m)
	if s.note("stream"); gap != "" {
		s.began = append(s.began, gap)
	}
	return m, nil
}

// last returns the last stream.
func (s *server) last() *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams[len(s.streams)-1]
}

// stream is a stream of a server.
type stream struct {
	*server
	gap                 loader.Gap
	ends                chan error // Receive returns it
	next, views, living int
	taken               []*loader.Transaction // by the follower: copies
	closed              bool
}

func (m *stream) Gap() loader.Gap { return m.gap }

func (m *stream) Checkpoint() loader.Checkpoint { return m.at }

func (m *stream) CloseGap(context.Context) error {
	m.do(func() { m.lost = ""; m.note("begun") })
	return nil
}

func (m *stream) Receive(ctx context.Context) (*loader.Transaction, error) {
	m.mu.Lock()
	more := m.more
	if m.next < len(m.sent) {
		defer m.mu.Unlock()
		t := loader.Transaction{}
		t.Join(m.sent[m.next])
		t.ID, t.End, t.Committed = m.sent[m.next].ID, m.sent[m.next].End, m.sent[m.next].Committed
		m.next++
		m.taken = append(m.taken, &t)
		return &t, nil
	}
	m.mu.Unlock()
	select {
	case <-more:
	case <-time.After(500 * time.Millisecond):
	case err := <-m.ends:
		return nil, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return nil, nil
}

func (m *stream) KeepAlive() error {
	m.do(func() { m.living++ })
	return nil
}

func (m *stream) View(context.Context) (loader.View, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.views++
	if m.fails != nil {
		return loader.View{}, m.fails
	}
	inserted := m.logEnd
	for _, t := range m.sent {
		inserted = max(inserted, t.End)
	}
	return loader.View{
		Snapshot: view{maps.Clone(m.hidden), m.past}, Now: time.Now().Add(time.Hour), Kept: 4096, End: m.logEnd, Inserted: inserted,
	}, nil
}

func (m *stream) FindGap(context.Context) (loader.Gap, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	why := m.broken
	m.broken = ""
	return why, m.fails
}

func (m *stream) GiveUp(context.Context) error {
	m.do(func() { m.lost = "there was no slot"; m.note("give up") })
	return nil
}

func (m *stream) Nudge(context.Context) error {
	m.do(func() { m.nudged++ })
	return nil
}

func (m *stream) Forget(known loader.Checkpoint) {
	m.do(func() { m.forgotten = append(m.forgotten, known) })
}

func (m *stream) Confirm(at loader.Position) { m.do(func() { m.confirmed = at }) }
func (m *stream) Close()                     { m.do(func() { m.closed = true; m.note("close") }) }

// view is what a reader of a server saw. The server's clock is an hour ahead.
type view struct {
	hidden map[uint64]bool
	past   bool
}

func (v view) Sees(t *loader.Transaction) bool { return !v.hidden[t.ID] }
func (v view) SeesPast() bool                  { return v.past }

func (v view) Outlives(earlier loader.Snapshot) bool {
	for id := range earlier.(view).hidden {
		if v.hidden[id] {
			return false
		}
	}
	return true
}

// host is a Host of a cluster whose owners a test has hang.
type host struct {
	server *server // has the log

	leads   bool
	changed chan struct{}
	hangs   map[string]chan struct{} // keys, and "flush" with a namespace; closed: it goes on
	takes   time.Duration            // a request
	now     int                      // requests that are under way
	most    int
	batches []int
	deleted map[string]int // by namespace and key
	flushed []string
	moments []time.Duration // that were certified
}

// lead has the host lead, or not.
func (h *host) lead(leads bool) {
	h.server.do(func() {
		h.leads = leads
		close(h.changed)
		h.changed = make(chan struct{})
	})
}

// hang has the deletion of a key hang, or a flush. The result has it go on.
func (h *host) hang(what string) (end func()) {
	c := make(chan struct{})
	h.server.do(func() { h.hangs[what] = c })
	return func() {
		h.server.do(func() { delete(h.hangs, what) })
		close(c)
	}
}

func (h *host) Leads(string) (bool, <-chan struct{}) {
	h.server.mu.Lock()
	defer h.server.mu.Unlock()
	return h.leads, h.changed
}

func (h *host) Outdate(ctx context.Context, namespace string, keys [][]byte) error {
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = string(key)
	}
	return h.ask(ctx, names, func() {
		h.batches = append(h.batches, len(keys))
		for _, name := range names {
			h.deleted[namespace+" "+name]++
		}
	})
}

// Now is a boot clock that has begun with the world.
func (h *host) Now() time.Duration { return time.Since(h.server.begun) }

func (h *host) Certified(_ string, at time.Duration, from loader.Checkpoint) {
	h.server.do(func() { h.moments, h.server.heard = append(h.moments, at), from })
}

func (h *host) FeedCheckpoint(string) loader.Checkpoint {
	h.server.mu.Lock()
	defer h.server.mu.Unlock()
	return h.server.heard
}

func (h *host) FlushAll(ctx context.Context, namespace string) error {
	return h.ask(ctx, []string{"flush " + namespace}, func() {
		h.flushed = append(h.flushed, namespace)
		h.server.note("flush " + namespace)
	})
}

// ask is a request to the owners. They answer when all that hangs goes on.
func (h *host) ask(ctx context.Context, names []string, done func()) error {
	var hangs []chan struct{}
	h.server.do(func() {
		h.now++
		h.most = max(h.most, h.now)
		for _, name := range names {
			if c := h.hangs[name]; c != nil {
				hangs = append(hangs, c)
			}
		}
	})
	defer h.server.do(func() { h.now-- })
	wait := time.After(h.takes)
	for _, c := range hangs {
		select {
		case <-c:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	select {
	case <-wait:
	case <-ctx.Done():
		return ctx.Err()
	}
	h.server.do(done)
	return nil
}

// keys returns the keys of users that were deleted, sorted.
func (h *host) keys() []string {
	h.server.mu.Lock()
	defer h.server.mu.Unlock()
	var list []string
	for key := range h.deleted {
		list = append(list, key[len("users "):])
	}
	slices.Sort(list)
	return list
}

// world is a server, and a host that follows it.
type world struct {
	*testing.T
	server *server
	host   *host
	f      *Follower
	stop   func() // ends Run, and waits for that
}

func tell(err error) (told, remedy string, logged error) {
	return "is told of", "mend it", fmt.Errorf("hidden: %w", err)
}

// add adds a host that does not lead.
func add(t *testing.T, s *server) *world {
	h := &host{server: s, changed: make(chan struct{}), hangs: map[string]chan struct{}{}, deleted: map[string]int{}}
	w := &world{T: t, server: s, host: h, f: New("shop", s, Times{s.maxLag, heardIn}, h, slog.New(slog.DiscardHandler), tell)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		w.f.Run(ctx)
		close(ended)
	}()
	w.stop = func() { cancel(); <-ended }
	t.Cleanup(w.stop)
	return w
}

// follows calls f in virtual time, with a host that leads once f has it lead. No goroutine of the
// follower may be left after Run.
func follows(t *testing.T, f func(w *world)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) { f(add(t, newServer())) })
}

// sleep lets time pass, and what is due then be done.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// lead has the host follow.
func (w *world) lead() {
	w.Helper()
	w.host.lead(true)
	synctest.Wait()
	w.is(Following)
}

// is checks the state of the feed at the host.
func (w *world) is(state string) {
	w.Helper()
	if s := w.f.Stats(); s.State != state || s.Following != (state == Following) {
		w.Errorf("the feed is %s (following: %v, error: %s), want %s", s.State, s.Following, s.Error, state)
	}
}

// has checks which keys of users were deleted, and up to where the server was confirmed.
func (w *world) has(what string, confirmed *loader.Transaction, keys ...string) {
	w.Helper()
	if got := w.host.keys(); !slices.Equal(got, keys) {
		w.Errorf("%s: deleted %q, want %q", what, got, keys)
	}
	want := loader.Position(0)
	if confirmed != nil {
		want = confirmed.End
	}
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	if w.server.confirmed != want {
		w.Errorf("%s: confirmed up to %d, want %d", what, w.server.confirmed, want)
	}
}
