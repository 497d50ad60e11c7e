package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// skippingClock is the machine's clock, which a test can set forward or stop. Set
// forward, it looks as to a process that was stopped for a while.
type skippingClock struct {
	*kv.SystemClock
	still   atomic.Pointer[kv.Moment]
	skipped atomic.Int64
}

func (c *skippingClock) stop() {
	now := c.SystemClock.Read()
	c.still.Store(&now)
}

func (c *skippingClock) Read() kv.Moment {
	m := c.SystemClock.Read()
	if still := c.still.Load(); still != nil {
		m = *still
	}
	m.Boot += time.Duration(c.skipped.Load())
	return m
}

// line is a proxy of a sidecar's socket; a test can delay the bytes that come from the
// sidecar. If the client has one connection for calls, the second connection is the near
// cache's.
type line struct {
	path  string
	mu    sync.Mutex
	conns []*held
}

type held struct {
	down, up net.Conn
	gate     sync.RWMutex // while locked, no bytes come
	came     atomic.Int64 // bytes from the sidecar
}

func newLine(t *testing.T, to string) *line {
	l := &line{path: filepath.Join(t.TempDir(), "p")}
	ln, err := net.Listen("unix", l.path)
	testenv.Must(t, err)
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() {
		ln.Close()
		l.cut()
	})
	wg.Go(func() {
		for {
			down, err := ln.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("unix", to)
			if err != nil {
				down.Close()
				continue
			}
			h := &held{down: down, up: up}
			l.mu.Lock()
			l.conns = append(l.conns, h)
			l.mu.Unlock()
			wg.Go(func() { _, _ = io.Copy(up, down); up.Close() })
			wg.Go(func() {
				defer down.Close()
				buf := make([]byte, 64<<10)
				for {
					n, err := up.Read(buf)
					h.came.Add(int64(n))
					h.gate.RLock()
					_, _ = down.Write(buf[:n])
					h.gate.RUnlock()
					if err != nil {
						return
					}
				}
			})
		}
	})
	return l
}

// feed returns the near cache's connection.
func (l *line) feed() *held {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conns[1]
}

func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.conns {
		h.down.Close()
		h.up.Close()
	}
}

// host runs a sidecar and returns a function that stops it.
func host(t testing.TB, path string) (stop func()) {
	t.Helper()
	s, err := sidecar.New(sidecar.Config{Node: "host", Socket: path, L2Size: 64 << 20})
	testenv.Must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }() // ends with stop
	select {
	case <-s.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		cancel()
		testenv.Should(t, <-done)
	})
	t.Cleanup(stop)
	return stop
}

// nearTest is a client with a near cache, the line that it uses, and another client that
// writes.
type nearTest struct {
	*Client
	t     testing.TB
	clock *skippingClock
	line  *line
	other *Client
	stop  func()
}

func newNearTest(t *testing.T, bound time.Duration) *nearTest {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	n := &nearTest{t: t, clock: &skippingClock{SystemClock: kv.NewSystemClock()}, stop: host(t, path)}
	n.line = newLine(t, path)
	var err error
	n.Client, err = dialWith(t.Context(), Config{Socket: n.line.path, Conns: 1, DialTimeout: time.Minute, RequestTimeout: time.Minute, NearCache: NearCache{Bytes: 1 << 20, Bound: bound}, NoSharedMemory: true}, n.clock)
	testenv.Must(t, err)
	t.Cleanup(func() { n.Close() })
	if n.other, err = Dial(t.Context(), Config{Socket: path, DialTimeout: time.Minute, RequestTimeout: time.Minute, NoSharedMemory: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.other.Close() })
	n.awaitFollowing()
	return n
}

// holdUp delays the answers on the near cache's connection until letGo is called or the
// test ends.
func (n *nearTest) holdUp() (letGo func()) {
	feed := n.line.feed()
	feed.gate.Lock()
	letGo = sync.OnceFunc(feed.gate.Unlock)
	n.t.Cleanup(letGo)
	return letGo
}

func (n *nearTest) awaitFollowing() {
	n.t.Helper()
	testenv.Eventually(n.t, "the near cache follows", func() bool { return n.NearStats().Following })
}

func (n *nearTest) set(c *Client, key, value string) {
	n.t.Helper()
	testenv.Must(n.t, testenv.ErrorOf(c.Set(context.Background(), key, []byte(value), cachesidecar.SetOptions{})))
}

func (n *nearTest) want(key, value, source string) cachesidecar.Item {
	n.t.Helper()
	it, err := n.Get(context.Background(), key, cachesidecar.GetOptions{})
	if value == "" && errors.Is(err, cachesidecar.ErrNotFound) {
		return it
	}
	if err != nil || string(it.Value) != value || source != "" && it.Source != source {
		n.t.Fatalf("%s is %q from %s, %v; want %q from %q", key, it.Value, it.Source, err, value, source)
	}
	return it
}

// keep reads a key until the near cache answers.
func (n *nearTest) keep(key, value string) {
	n.t.Helper()
	testenv.Eventually(n.t, key+" is kept", func() bool { return n.want(key, value, "").Source == "near" })
}

func TestNearHit(t *testing.T) {
	n := newNearTest(t, time.Minute)
	ctx := t.Context()
	v, err := n.other.Set(ctx, "k", []byte("1"), cachesidecar.SetOptions{Flags: 7, TTL: time.Minute})
	testenv.Must(t, err)
	n.want("k", "1", "l2")
	it := n.want("k", "1", "near")
	if it.Flags != 7 || it.Version != v || it.TTL <= 50*time.Second || it.TTL > time.Minute || it.Age > time.Minute {
		t.Errorf("%+v", it)
	}
	it.Value[0] = 'x' // the caller owns the value
	n.want("k", "1", "near")
	if it, err := n.Get(ctx, "k", cachesidecar.GetOptions{Fresh: true}); err != nil || it.Source != "l2" {
		t.Errorf("fresh: %+v, %v", it, err)
	}
	n.set(n.other, "m", "2")
	for _, source := range []string{"l2", "near"} {
		m, err := n.GetMulti(ctx, []string{"k", "m", "none"}, cachesidecar.GetOptions{})
		if err != nil || len(m) != 2 || m["k"].Source != "near" || m["m"].Source != source {
			t.Errorf("%+v, %v", m, err)
		}
	}
	// The same name in another namespace is another key.
	users := n.InNamespace("users")
	if _, err := users.Get(ctx, "k", cachesidecar.GetOptions{}); !errors.Is(err, cachesidecar.ErrNotFound) {
		t.Errorf("in another namespace: %v", err)
	}
	testenv.Must(t, testenv.ErrorOf(users.Set(ctx, "k", []byte("u"), cachesidecar.SetOptions{})))
	for _, source := range []string{"l2", "near"} {
		if it, err := users.Get(ctx, "k", cachesidecar.GetOptions{}); err != nil || string(it.Value) != "u" || it.Source != source {
			t.Errorf("%+v, %v", it, err)
		}
	}
	st := n.NearStats()
	if !st.Following || st.Hits < 5 || st.Misses < 3 || st.Entries != 3 || st.Bytes <= 0 || st.Bytes > st.Limit || st.Resets != 1 {
		t.Errorf("%+v", st)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := n.Get(canceled, "k", cachesidecar.GetOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

// TestNearOwnWrites checks that a read after a write of the same client sees that write,
// even if the stream has not reported it. Here the stream reports nothing.
func TestNearOwnWrites(t *testing.T) {
	n := newNearTest(t, time.Minute)
	ctx := t.Context()
	n.set(n.other, "k", "1")
	n.keep("k", "1")
	n.holdUp()
	for _, w := range []struct {
		name string
		do   func() error
		want string
	}{
		{"set", func() error { _, err := n.Set(ctx, "k", []byte("2"), cachesidecar.SetOptions{}); return err }, "2"},
		{"incr", func() error { _, err := n.Incr(ctx, "k", 40, cachesidecar.IncrOptions{}); return err }, "42"},
		{"append", func() error { _, err := n.Append(ctx, "k", []byte("0"), cachesidecar.AppendOptions{}); return err }, "420"},
		{"unsigned", func() error { _, err := n.DecrUnsigned(ctx, "k", 400, cachesidecar.UnsignedOptions{}); return err }, "20"},
		{"delete", func() error { return n.Delete(ctx, "k", cachesidecar.DeleteOptions{}) }, ""},
		{"add", func() error { _, err := n.Add(ctx, "k", []byte("4"), cachesidecar.SetOptions{}); return err }, "4"},
		{"flush", func() error { return n.Flush(ctx, cachesidecar.FlushOptions{}) }, ""},
		{"set again", func() error { _, err := n.Set(ctx, "k", []byte("5"), cachesidecar.SetOptions{}); return err }, "5"},
	} {
		if err := w.do(); err != nil {
			t.Fatalf("%s: %v", w.name, err)
		}
		n.want("k", w.want, "l2")
		if w.want != "" {
			n.keep("k", w.want)
		}
	}
	testenv.Must(t, n.Touch(ctx, "k", cachesidecar.TouchOptions{TTL: time.Hour / 2}))
	if it := n.want("k", "5", ""); it.TTL > time.Hour/2 {
		t.Errorf("after a touch %v are left", it.TTL)
	}
	n.keep("k", "5")
	testenv.Must(t, testenv.ErrorOf(n.GetAndTouch(ctx, "k", time.Hour/4)))
	if it := n.want("k", "5", ""); it.TTL > time.Hour/4 {
		t.Errorf("after GetAndTouch %v are left", it.TTL)
	}
	// A deletion that finds no value, since another client's deletion came first.
	n.keep("k", "5")
	testenv.Must(t, n.other.Delete(ctx, "k", cachesidecar.DeleteOptions{}))
	if err := n.Delete(ctx, "k", cachesidecar.DeleteOptions{}); !errors.Is(err, cachesidecar.ErrNotFound) {
		t.Fatalf("got %v, want ErrNotFound", err)
	}
	n.want("k", "", "")
	n.set(n.Client, "k", "5")
	// A write whose outcome is not known.
	n.keep("k", "5")
	n.near.wrote([]byte("k"), 0, cachesidecar.ErrTimeout)
	n.want("k", "5", "l2")
	n.keep("k", "5")
	n.near.wrote([]byte("k"), 0, cachesidecar.ErrBusy)
	n.want("k", "5", "near")
}

// TestNearOthersWrites checks that writes of other clients outdate kept values at once.
func TestNearOthersWrites(t *testing.T) {
	n := newNearTest(t, time.Minute)
	ctx := t.Context()
	for i := range 50 {
		value := fmt.Sprint(i)
		n.set(n.other, "k", value)
		testenv.Eventually(n.t, "the new value", func() bool {
			it, err := n.Get(ctx, "k", cachesidecar.GetOptions{})
			return err == nil && string(it.Value) == value
		})
		n.keep("k", value)
	}
	for _, o := range []cachesidecar.FlushOptions{{}, {All: true}} {
		testenv.Must(t, n.other.Flush(ctx, o))
		testenv.Eventually(n.t, "it is flushed", func() bool {
			_, err := n.Get(ctx, "k", cachesidecar.GetOptions{})
			return errors.Is(err, cachesidecar.ErrNotFound)
		})
		n.set(n.other, "k", "x")
		n.keep("k", "x")
	}
}

// TestNearSilentSidecar checks a sidecar that sends nothing any more. Kept values are
// served for the bound, counted from the last request that the sidecar has answered, and
// not longer.
func TestNearSilentSidecar(t *testing.T) {
	const bound = 400 * time.Millisecond
	n := newNearTest(t, bound)
	n.set(n.other, "k", "1")
	n.clock.stop()
	n.keep("k", "1")
	testenv.Eventually(n.t, "a lease that begins now", func() bool {
		s := n.near.cache.stream.Load()
		return s != nil && time.Duration(s.lease.Load()) == n.clock.Read().Boot
	})
	letGo := n.holdUp()
	n.set(n.other, "k", "2")
	n.want("k", "1", "near")
	n.clock.skipped.Add(int64(bound - 1))
	n.want("k", "1", "near")
	n.clock.skipped.Add(1)
	for range 10 {
		n.want("k", "2", "l2")
	}
	letGo()
	n.keep("k", "2")
}

// TestNearStoppedClient checks a client that was stopped and goes on: it finds answers
// that were valid when their requests were sent, but are not valid now.
func TestNearStoppedClient(t *testing.T) {
	n := newNearTest(t, time.Minute)
	n.set(n.other, "k", "1")
	n.keep("k", "1")
	letGo := n.holdUp() // the answers stay in the buffer
	events := n.near.cache.events.Load()
	feed := n.line.feed()
	came := feed.came.Load()
	n.set(n.other, "other", "1")
	testenv.Eventually(n.t, "the event is on its way", func() bool { return feed.came.Load() > came })
	n.set(n.other, "k", "2")
	n.clock.skipped.Add(int64(time.Hour))
	if it, err := n.Get(context.Background(), "k", cachesidecar.GetOptions{}); err != nil || string(it.Value) != "2" {
		t.Errorf("after the stop: %q from %s, %v", it.Value, it.Source, err)
	}
	// The next answer is about another key, and an hour old.
	before := n.near.cache.stream.Load()
	letGo()
	testenv.Eventually(n.t, "an old answer", func() bool { return n.near.cache.events.Load() > events })
	if now := n.clock.Read().Boot; before != nil && n.near.cache.stream.Load() == before && now-time.Duration(before.lease.Load()) < 0 {
		t.Errorf("the lease is of the future")
	}
	n.keep("k", "2")
}

// TestNearLease checks that the lease counts from the moment when the request was sent,
// and covers applied events only.
func TestNearLease(t *testing.T) {
	n := newNearTest(t, time.Minute)
	n.shared.close() // only the test applies answers
	n.tasks.Wait()
	renew := func() {
		cache, _ := newNear(n.near.cache.cfg, n.clock, newHits(func() {}))
		n.near = nearView{cache: cache}.in("default")
	}
	renew()
	welcome := &wire.Welcome{Node: "host", Hash: wire.Hashing{Name: wire.HashName, Partitions: kv.Partitions}}
	reset := func() *stream {
		n.near.cache.apply(n.clock.Read().Boot, &wire.Watched{Epoch: 1, Seq: 10, Head: 10, Reset: true}, welcome)
		return n.near.cache.stream.Load()
	}
	put := func(s *stream) {
		welcomed := &slot{}
		welcomed.greeted.Store(&greeting{welcome: *welcome})
		n.near.keep("k", asked{n.clock.Read().Boot, s}, &answer{from: welcomed}, &wire.Reply{Value: []byte("v"), Version: 5, AsOf: 100, Attested: true})
	}
	served := func() bool { _, ok := n.near.get(t.Context(), "k", cachesidecar.GetOptions{}); return ok }
	check := func(what string, want bool) {
		t.Helper()
		if served() != want {
			t.Errorf("%s: served: %v, want %v", what, !want, want)
		}
	}
	key := n.near.space.key("k")
	event := func(kind uint8, version uint64, d *wire.EventDetail) (w wire.Watched) {
		h := uint64(0)
		if kind == wire.EventChanged {
			h = uint64(key.Hash)
		}
		w = wire.Watched{Epoch: 1, After: 10, Seq: 11, Head: 11}
		w.Events.Add(kind, h, version, d)
		return w
	}
	now := func() time.Duration { return n.clock.Read().Boot }

	put(reset())
	check("kept", true)
	n.clock.skipped.Add(int64(2 * time.Minute))
	check("after a stop", false)
	sent := now()
	n.clock.skipped.Add(int64(2 * time.Minute))
	n.near.cache.apply(sent, &wire.Watched{Epoch: 1, After: 10, Seq: 10, Head: 10}, welcome)
	check("a heartbeat that was asked for before the stop", false)
	n.near.cache.apply(now(), &wire.Watched{Epoch: 1, After: 10, Seq: 10, Head: 10}, welcome)
	check("a heartbeat of now", true)

	s := reset()
	check("kept before a reset", false)
	n.near.cache.values.put(&kept{hash: key.Hash, namespace: key.Namespace, key: "k", asOf: 100, facts: kv.Facts{Version: 5}, requestedAt: now(), stream: &stream{}})
	check("kept under another stream", false)
	put(s)
	n.clock.skipped.Add(int64(2 * time.Minute))
	n.near.cache.apply(now(), &wire.Watched{Epoch: 1, After: 10, Seq: 10, Head: 12}, welcome)
	check("not all is applied that the answer names", false)
	n.near.cache.apply(now(), &wire.Watched{Epoch: 1, After: 10, Seq: 12, Head: 12}, welcome)
	check("all is", true)
	n.near.cache.apply(now(), &wire.Watched{Epoch: 1, After: 13, Seq: 14, Head: 14}, welcome)
	n.clock.skipped.Add(int64(time.Minute))
	check("a gap", false)

	for _, tc := range []struct {
		name string
		w    wire.Watched
		want bool
	}{
		{"a change after it was attested", event(wire.EventChanged, 101, nil), false},
		{"a change of a part that is not its", event(wire.EventRaised, 1, &wire.EventDetail{Partitions: []byte{0}}), true},
		{"a floor", event(wire.EventRaised, 1, &wire.EventDetail{Partitions: []byte(strings.Repeat("\xff", kv.Partitions/8))}), false},
		{"a flush before it was written", event(wire.EventFlushed, 5, &wire.EventDetail{Namespace: "default"}), true},
		{"another's flush", event(wire.EventFlushed, 6, &wire.EventDetail{Namespace: "other"}), true},
		{"a flush", event(wire.EventFlushed, 6, &wire.EventDetail{Namespace: "default"}), false},
		{"a flush of all", event(wire.EventFlushed, 6, &wire.EventDetail{}), false},
		{"a kind of a later version", wire.Watched{Epoch: 1, After: 10, Seq: 11, Head: 11, Events: wire.Events{Packed: append([]byte{9}, make([]byte, 16)...)}}, false},
	} {
		renew()
		put(reset())
		check("before "+tc.name, true)
		n.near.cache.apply(now(), &tc.w, welcome)
		check(tc.name, tc.want)
	}

	// A value is kept only if the followed process returned it attested, and only if it
	// was requested under the present stream, after the last floor.
	renew()
	s = reset()
	for _, tc := range []struct {
		name  string
		epoch uint64
		a     asked
		r     wire.Reply
		want  bool
	}{
		{"all is well", 0, asked{now() + 1, s}, wire.Reply{AsOf: 100, Attested: true}, true},
		{"no host attests it", 0, asked{now() + 1, s}, wire.Reply{AsOf: 100}, false},
		{"another process", 1, asked{now() + 1, s}, wire.Reply{AsOf: 100, Attested: true}, false},
		{"another stream", 0, asked{now() + 1, &stream{}}, wire.Reply{AsOf: 100, Attested: true}, false},
		{"no stream", 0, asked{now() + 1, nil}, wire.Reply{AsOf: 100, Attested: true}, false},
		{"a stale value", 0, asked{now() + 1, s}, wire.Reply{Status: wire.Stale, AsOf: 100, Attested: true}, false},
		{"a long value", 0, asked{now() + 1, s}, wire.Reply{Value: make([]byte, 1<<20), AsOf: 100, Attested: true}, false},
		{"asked for before a floor", 0, asked{now() - time.Second, s}, wire.Reply{AsOf: 100, Attested: true}, false},
		{"expired", 0, asked{now() - time.Second, s}, wire.Reply{AsOf: 100, Attested: true, TTLMS: 1}, false},
	} {
		n.near.cache.values.clear()
		if tc.name == "asked for before a floor" {
			n.near.cache.drop()
		} else {
			clear(n.near.cache.floors[:])
		}
		from := &slot{}
		from.greeted.Store(&greeting{welcome: wire.Welcome{Epoch: tc.epoch}})
		n.near.keep("k", tc.a, &answer{from: from}, &tc.r)
		check(tc.name, tc.want)
		if entries, _ := n.near.cache.values.size(); tc.name == "another stream" && entries != 0 {
			t.Errorf("%s: it is kept", tc.name)
		}
	}
}

// TestNearDisconnect checks that all values are dropped at once if the connection breaks,
// and that no value of an earlier sidecar is served after another one has started.
func TestNearDisconnect(t *testing.T) {
	n := newNearTest(t, time.Minute)
	n.set(n.other, "k", "1")
	n.keep("k", "1")
	before := n.near.cache.stream.Load()
	n.line.cut()
	testenv.Eventually(n.t, "everything is dropped", func() bool { return n.near.cache.stream.Load() != before })
	if st := n.NearStats(); st.Entries != 0 && !st.Following {
		t.Errorf("%+v", st)
	}
	n.awaitFollowing()
	if st := n.NearStats(); st.Resets < 2 {
		t.Errorf("%+v, want another reset", st)
	}
	testenv.Eventually(n.t, "the connection is there again", func() bool { return n.Ping(context.Background()) == nil })
	n.keep("k", "1")
	path := n.other.cfg.Socket
	n.stop()
	PassMove(t, n.Client)
	testenv.Eventually(n.t, "nothing is followed, and all is dropped", func() bool {
		st := n.NearStats()
		return !st.Following && st.Entries == 0
	})
	host(t, path)
	testenv.Eventually(n.t, "the other sidecar", func() bool {
		_, err := n.Get(context.Background(), "k", cachesidecar.GetOptions{})
		return errors.Is(err, cachesidecar.ErrNotFound)
	})
}

func TestNearRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	host(t, path)
	for _, c := range []NearCache{{Bytes: 1}, {Bound: time.Second}, {Bytes: 1 << 20, Bound: time.Millisecond}, {Bytes: 1 << 20, Bound: time.Hour}} {
		if _, err := Dial(t.Context(), Config{Socket: path, NearCache: c, DialTimeout: time.Minute}); !errors.Is(err, cachesidecar.ErrBadRequest) {
			t.Errorf("%+v: %v, want ErrBadRequest", c, err)
		}
	}
}

// TestNearConcurrently runs readers, a writer, floors and resets at the same time. It
// checks that no read returns a value older than a write of the same client.
func TestNearConcurrently(t *testing.T) {
	n := newNearTest(t, time.Minute)
	ctx, stop := context.WithCancel(context.Background())
	var last [10]atomic.Int64
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	var hits, writes atomic.Int64
	floor := make(chan struct{})
	for i := range last {
		n.set(n.Client, fmt.Sprint("k", i), "0")
	}
	wg.Go(func() {
		defer close(floor)
		for v := int64(1); ctx.Err() == nil; v++ {
			i := v % 10
			n.set(n.Client, fmt.Sprint("k", i), fmt.Sprint(v))
			last[i].Store(v)
			writes.Store(v)
			if v%25 == 0 {
				floor <- struct{}{}
			}
		}
	})
	wg.Go(func() {
		for range floor {
			n.near.cache.drop()
		}
	})
	for range 4 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				least := last[i%10].Load()
				it, err := n.Get(context.Background(), fmt.Sprint("k", i%10), cachesidecar.GetOptions{})
				var v int64
				if _, e := fmt.Sscan(string(it.Value), &v); err != nil || e != nil || v < least {
					t.Errorf("k%d is %q from %s, %v; want %d or later", i%10, it.Value, it.Source, err, least)
					return
				}
				if it.Source == "near" {
					hits.Add(1)
					runtime.Gosched() // the writer's turn
				}
			}
		})
	}
	testenv.Eventually(t, "enough hits, writes and floors", func() bool { return t.Failed() || hits.Load() >= 100 && writes.Load() >= 500 })
}
