package client_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// loading is a function for GetOrLoad; a test ends its calls.
type loading chan func([]byte, error)

func (l loading) load(ctx context.Context, _ string) (v []byte, err error) {
	over := make(chan struct{})
	select {
	case l <- func(b []byte, e error) {
		v, err = b, e
		close(over)
	}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case <-over:
		return v, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// next returns the function that ends a call under way.
func (l loading) next(t *testing.T) func([]byte, error) {
	t.Helper()
	select {
	case end := <-l:
		return end
	case <-testenv.Expired():
		t.Fatal("no load")
	}
	return nil
}

func (l loading) none(t *testing.T) {
	t.Helper()
	select {
	case <-l:
		t.Fatal("a load that must not be")
	default:
	}
}

// quiet fails if the client sends a request, or loads, before ten pings were answered.
func (s *scripted) quiet(l loading) {
	s.t.Helper()
	for range 10 {
		pinged := make(chan error, 1)
		go func() { pinged <- s.Ping(s.t.Context()) }()
		s.wants(wire.OpPing).answer(wire.Reply{})
		testenv.Must(s.t, <-pinged)
		l.none(s.t)
	}
}

// callers are concurrent calls of GetOrLoad.
type callers struct {
	t  *testing.T
	wg sync.WaitGroup
	mu sync.Mutex
	// in the order in which the calls returned
	items []cachesidecar.Item
	errs  []error
}

// call begins n calls. It returns when all of them have joined a flight or have returned.
func (s *scripted) call(n int, key string, load func(context.Context, string) ([]byte, error), o client.LoadOptions) *callers {
	c := &callers{t: s.t}
	had := s.Joined()
	for range n {
		c.wg.Go(func() {
			it, err := s.GetOrLoad(s.t.Context(), key, load, o)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.items, c.errs = append(c.items, it), append(c.errs, err)
		})
	}
	testenv.Eventually(s.t, fmt.Sprint(n, " calls have joined a flight"), func() bool {
		joined := s.Joined() - had
		c.mu.Lock()
		defer c.mu.Unlock()
		return joined+len(c.errs) >= n
	})
	return c
}

// wait returns when all calls have returned.
func (c *callers) wait() {
	c.t.Helper()
	over := make(chan struct{})
	go func() {
		c.wg.Wait()
		close(over)
	}()
	select {
	case <-over:
	case <-testenv.Expired():
		c.t.Fatal("a call does not return")
	}
}

func (c *callers) want(value, source string) {
	c.t.Helper()
	c.wait()
	for i, it := range c.items {
		if c.errs[i] != nil || string(it.Value) != value || it.Source != source {
			c.t.Errorf("caller %d of %d: %q from %q, %v; want %q from %q", i, len(c.items), it.Value, it.Source, c.errs[i], value, source)
		}
		if len(it.Value) > 0 {
			it.Value[0] ^= 1 // each caller has its own bytes
		}
	}
}

func (c *callers) wantError(is error) {
	c.t.Helper()
	c.wait()
	for i, err := range c.errs {
		if !errors.Is(err, is) {
			c.t.Errorf("caller %d of %d: %v, want %v", i, len(c.errs), err, is)
		}
	}
}

// TestLoadFills checks that the caller that gets the lease loads once for all callers
// that came before the LEASE was sent, and that it fills with the options.
func TestLoadFills(t *testing.T) {
	s, l := newScripted(t, client.Config{Namespace: "users"}), make(loading)
	one := s.call(1, "k", l.load, client.LoadOptions{TTL: time.Minute, Flags: 3})
	lease := s.wants(wire.OpLease)
	lease.answer(granted)
	l.next(t)([]byte("loaded"), nil)
	f := s.wants(wire.OpFill)
	if string(f.Key) != "k" || string(f.Token) != "token" || string(f.Value) != "loaded" || f.TTLMS != 60_000 || f.Flags != 3 || f.Options != 0 {
		t.Errorf("FILL: %+v", f.Request)
	}
	f.answer(filled)
	one.want("loaded", "load")
	if it := one.items[0]; it.Version != 7 || it.Flags != 3 || it.TTL != time.Minute {
		t.Errorf("%+v", it)
	}
}

// TestLoadOfItsOwnKey checks that a load that asks for its own key, itself or through another
// load, gets an error at once.
func TestLoadOfItsOwnKey(t *testing.T) {
	s := newScripted(t, client.Config{})
	var load func(context.Context, string) ([]byte, error)
	load = func(ctx context.Context, key string) ([]byte, error) {
		next := map[string]string{"own": "own", "a": "b", "b": "a"}[key]
		it, err := s.GetOrLoad(ctx, next, load, client.LoadOptions{})
		return it.Value, err
	}
	for key, leases := range map[string]int{"own": 1, "a": 2} {
		caller := s.call(1, key, load, client.LoadOptions{})
		for range leases {
			s.wants(wire.OpLease).answer(granted)
		}
		for range leases {
			f := s.wants(wire.OpFill)
			if !f.Has(wire.Abandon) {
				t.Errorf("FILL: %+v", f.Request)
			}
			f.answer(wire.Reply{})
		}
		caller.wantError(cachesidecar.ErrBadRequest)
	}
}

// TestLoadThatHasEnded checks that what a load leaves running may load the key again.
func TestLoadThatHasEnded(t *testing.T) {
	s := newScripted(t, client.Config{})
	var left context.Context
	first := s.call(1, "k", func(ctx context.Context, _ string) ([]byte, error) {
		left = context.WithoutCancel(ctx)
		return nil, nil
	}, client.LoadOptions{})
	s.wants(wire.OpLease).answer(granted)
	s.wants(wire.OpFill).answer(filled)
	first.wait()
	done := make(chan error, 1)
	go func() {
		_, err := s.GetOrLoad(left, "k", func(context.Context, string) ([]byte, error) { return nil, nil }, client.LoadOptions{})
		done <- err
	}()
	s.wants(wire.OpLease).answer(granted)
	s.wants(wire.OpFill).answer(filled)
	testenv.Must(t, <-done)
}

// TestLoadJoinsWhatIsNotAsked checks that a caller shares no answer to a question that
// was sent before the caller came, and no load that began before that.
func TestLoadJoinsWhatIsNotAsked(t *testing.T) {
	s, l := newScripted(t, client.Config{}), make(loading)
	first := s.call(1, "k", l.load, client.LoadOptions{})
	asked := s.wants(wire.OpLease)
	second := s.call(20, "k", l.load, client.LoadOptions{})
	s.quiet(l) // they gather for the next flight
	asked.answer(value("old"))
	first.want("old", "l2")

	asked = s.wants(wire.OpLease)
	asked.answer(granted)
	end := l.next(t)
	third := s.call(1, "k", l.load, client.LoadOptions{})
	waits := s.wants(wire.OpLease) // while the load goes on
	fourth := s.call(20, "k", l.load, client.LoadOptions{})
	s.quiet(l)
	end([]byte("loaded"), nil)
	s.wants(wire.OpFill).answer(filled)
	second.want("loaded", "load")
	waits.answer(value("filled"))
	third.want("filled", "l2")
	s.wants(wire.OpLease).answer(value("new"))
	fourth.want("new", "l2")
	l.none(t)
}

// TestLoadKeysAreApart checks that different keys and namespaces share no flight, and
// that callers that accept stale values share none with others.
func TestLoadKeysAreApart(t *testing.T) {
	s, l := newScripted(t, client.Config{}), make(loading)
	all := []*callers{
		s.call(1, "a", l.load, client.LoadOptions{}),
		s.call(1, "b", l.load, client.LoadOptions{}),
		s.call(1, "a", l.load, client.LoadOptions{StaleOK: true}),
		s.call(1, "a", l.load, client.LoadOptions{Fresh: true}),
		s.in("other").call(1, "a", l.load, client.LoadOptions{}),
	}
	var asked []*asked
	for range all { // in any order
		asked = append(asked, s.wants(wire.OpLease))
	}
	for _, a := range asked {
		a.answer(value(fmt.Sprintf("%s %s %d", a.Namespace, a.Key, a.Options)))
	}
	for i, want := range []string{
		" a 0", " b 0", fmt.Sprint(" a ", uint32(wire.StaleOK)), fmt.Sprint(" a ", uint32(wire.Fresh)), "other a 0",
	} {
		all[i].want(want, "l2")
	}
}

func TestLoadStale(t *testing.T) {
	s, l := newScripted(t, client.Config{}), make(loading)
	c := s.call(1, "k", l.load, client.LoadOptions{StaleOK: true})
	a := s.wants(wire.OpLease)
	if !a.Has(wire.StaleOK) {
		t.Errorf("LEASE with options %#x", a.Options)
	}
	a.answer(wire.Reply{Status: wire.Stale, Value: []byte("old"), AgeMS: 500, Source: wire.SourceL2})
	c.want("old", "l2")
	if !c.items[0].Stale || c.items[0].Age != 500*time.Millisecond {
		t.Errorf("%+v", c.items[0])
	}
}

// TestLoadFails checks that all callers get the result of a failed load, and that the
// lease is given back.
func TestLoadFails(t *testing.T) {
	boom := errors.New("boom")
	for _, tc := range []struct {
		name string
		load func(context.Context, string) ([]byte, error)
		is   error
		want string
	}{
		{"error", func(context.Context, string) ([]byte, error) { return []byte("x"), boom }, boom, "boom"},
		{"nothing there", func(context.Context, string) ([]byte, error) { return nil, cachesidecar.ErrNotFound }, cachesidecar.ErrNotFound, "not found"},
		{"panic", func(context.Context, string) ([]byte, error) { panic("ouch") }, nil, `load of "k" panicked: ouch`},
		{"the goroutine's end", func(context.Context, string) ([]byte, error) { runtime.Goexit(); return nil, nil }, nil, `load of "k" ended its goroutine`},
		{"too long a time", func(ctx context.Context, _ string) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }, context.DeadlineExceeded, "deadline"},
		{"too long a value", func(context.Context, string) ([]byte, error) { return make([]byte, 2<<20), nil }, nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScripted(t, client.Config{LoadTimeout: 20 * time.Millisecond})
			blocker := s.call(1, "k", tc.load, client.LoadOptions{})
			first := s.wants(wire.OpLease)
			c := s.call(3, "k", tc.load, client.LoadOptions{}) // of the next flight
			first.answer(value("v"))
			blocker.want("v", "l2")
			s.wants(wire.OpLease).answer(granted)
			f := s.wants(wire.OpFill)
			if !f.Has(wire.Abandon) || string(f.Token) != "token" || f.Value != nil {
				t.Errorf("FILL: %+v, want abandon", f.Request)
			}
			f.answer(wire.Reply{})
			c.wait()
			for _, err := range c.errs {
				if tc.want == "" && err == nil {
					continue
				}
				if err == nil || !strings.Contains(err.Error(), tc.want) || tc.is != nil && !errors.Is(err, tc.is) {
					t.Errorf("%v, want %q", err, tc.want)
				}
			}
		})
	}
}

// TestLoadNotStored checks that a value that may not be kept is returned all the same,
// and that the token is not used again.
func TestLoadNotStored(t *testing.T) {
	s, l := newScripted(t, client.Config{}), make(loading)
	c := s.call(1, "k", l.load, client.LoadOptions{})
	s.wants(wire.OpLease).answer(granted)
	l.next(t)([]byte("loaded"), nil)
	s.wants(wire.OpFill).answer(refused(wire.NotStored))
	c.want("loaded", "load")
	if v := c.items[0].Version; v != 0 {
		t.Errorf("version %d of what is not stored", v)
	}
	s.quiet(l)
}

// TestLoadFailsOpen checks that the process loads if the sidecar cannot, for one caller
// at a time.
func TestLoadFailsOpen(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer wire.Reply
		closed error // with FailClosed; nil: it loads too
	}{
		{"unavailable", refused(wire.Unavailable), cachesidecar.ErrUnavailable},
		{"busy", refused(wire.Busy), cachesidecar.ErrBusy},
		{"timeout", refused(wire.Timeout), cachesidecar.ErrTimeout},
		{"unsupported", refused(wire.Unsupported), cachesidecar.ErrUnsupported},
		{"degraded", wire.Reply{Status: wire.Miss, Why: wire.Degraded}, nil},
	} {
		for _, of := range []wire.Op{wire.OpGet, wire.OpLease} {
			t.Run(tc.name+" on "+of.String(), func(t *testing.T) {
				cfg := client.Config{WaitTimeout: 1}
				s, l := newScripted(t, cfg), make(loading)
				begin := func(s *scripted, n int) *callers {
					if of == wire.OpGet {
						s.get = tc.answer
						return s.call(n, "k", l.load, client.LoadOptions{})
					}
					c := s.call(n, "k", l.load, client.LoadOptions{})
					s.wants(wire.OpLease).answer(tc.answer)
					return c
				}
				first := begin(s, 1)
				end := l.next(t)
				second := s.call(20, "k", l.load, client.LoadOptions{})
				s.quiet(l) // they gather for the next flight
				end([]byte("one"), nil)
				first.want("one", "load")
				if of == wire.OpLease {
					s.wants(wire.OpLease).answer(tc.answer)
				}
				l.next(t)([]byte("two"), nil)
				second.want("two", "load")
				s.quiet(l)

				cfg.FailClosed = true
				s = newScripted(t, cfg)
				c := begin(s, 1)
				if tc.closed == nil {
					l.next(t)([]byte("three"), nil)
					c.want("three", "load")
					return
				}
				c.wantError(tc.closed)
				s.quiet(l)
			})
		}
	}
}

// TestLoadLeavesItToTheOrigin checks that the process does not load if the sidecar has an
// origin and that origin has answered or failed.
func TestLoadLeavesItToTheOrigin(t *testing.T) {
	l := make(loading)
	for _, tc := range []struct {
		answer wire.Reply
		want   error
	}{
		{wire.Reply{Status: wire.Miss, Why: wire.Absent}, cachesidecar.ErrNotFound},
		{refused(wire.Origin), cachesidecar.ErrOrigin},
		{refused(wire.BadRequest), cachesidecar.ErrBadRequest},
	} {
		s := newScripted(t, client.Config{})
		c := s.call(1, "k", l.load, client.LoadOptions{})
		s.wants(wire.OpLease).answer(tc.answer)
		c.wantError(tc.want)

		s.get = tc.answer
		s.call(1, "k", l.load, client.LoadOptions{}).wantError(tc.want)
		s.quiet(l)
	}
}

// TestLoadWaitsForOthers checks that the client asks again if the sidecar answers that
// another caller loads, since that sidecar is alive. If the sidecar does not answer, the
// client loads.
func TestLoadWaitsForOthers(t *testing.T) {
	s, l := newScripted(t, client.Config{RequestTimeout: time.Minute, WaitTimeout: 3 * time.Minute}), make(loading)
	c := s.call(1, "k", l.load, client.LoadOptions{})
	s.wants(wire.OpLease).answer(refused(wire.Timeout))
	s.wants(wire.OpLease).answer(refused(wire.Timeout))
	third := s.wants(wire.OpLease)
	s.quiet(l)
	third.answer(refused(wire.Timeout))
	l.next(t)([]byte("mine"), nil)
	c.want("mine", "load")

	c = s.call(1, "k", l.load, client.LoadOptions{})
	s.wants(wire.OpLease).answer(refused(wire.Timeout))
	s.wants(wire.OpLease).answer(value("theirs"))
	c.want("theirs", "l2")

	const short = 100 * time.Millisecond
	s = newScripted(t, client.Config{RequestTimeout: short, WaitTimeout: short})
	ctx := testenv.Context(t) // in which the GET is answered
	got := make(chan string, 1)
	go func() { // ends with the load
		it, err := s.GetOrLoad(ctx, "k", l.load, client.LoadOptions{})
		got <- fmt.Sprintf("%s from %s, %v", it.Value, it.Source, err)
	}()
	s.wants(wire.OpLease) // no answer
	l.next(t)([]byte("mine"), nil)
	if got, want := <-got, "mine from load, <nil>"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestLoadOutlivesItsCaller checks that a load continues after its caller has given up,
// and that Close ends loads and waits for them.
func TestLoadOutlivesItsCaller(t *testing.T) {
	s, l := newScripted(t, client.Config{}), make(loading)
	type mark struct{}
	ctx, leave := context.WithCancel(context.WithValue(t.Context(), mark{}, "mine"))
	gone := make(chan error)
	go func() {
		_, err := s.GetOrLoad(ctx, "k", func(ctx context.Context, key string) ([]byte, error) {
			if ctx.Value(mark{}) != "mine" {
				t.Error("the context has lost its values")
			}
			return l.load(ctx, key)
		}, client.LoadOptions{})
		gone <- err
	}()
	asked := s.wants(wire.OpLease)
	leave()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("who gives up gets %v", err)
	}
	asked.answer(granted)
	l.next(t)([]byte("loaded"), nil)
	f := s.wants(wire.OpFill)
	if string(f.Value) != "loaded" {
		t.Errorf("FILL: %+v", f.Request)
	}
	f.answer(filled)

	c := s.call(1, "k", l.load, client.LoadOptions{})
	s.wants(wire.OpLease).answer(granted)
	l.next(t) // the load does not end
	next := s.call(1, "k", l.load, client.LoadOptions{})
	s.wants(wire.OpLease)
	last := s.call(1, "k", l.load, client.LoadOptions{}) // gathers for the next flight
	s.Close()
	c.wantError(context.Canceled)
	for _, c := range []*callers{next, last} {
		c.wait()
		if c.errs[0] == nil {
			t.Error("no error after Close")
		}
	}
	l.none(t)
	if _, err := s.GetOrLoad(t.Context(), "k", l.load, client.LoadOptions{}); !errors.Is(err, cachesidecar.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestLoadBound checks that a key above MaxLoads is refused, and that one more caller of
// a key that already gathers callers is not.
func TestLoadBound(t *testing.T) {
	s, l := newScripted(t, client.Config{MaxLoads: 2}), make(loading)
	a := s.call(1, "a", l.load, client.LoadOptions{})
	asked := s.wants(wire.OpLease)
	next := s.call(5, "a", l.load, client.LoadOptions{})
	s.call(1, "b", l.load, client.LoadOptions{}).wantError(cachesidecar.ErrBusy)
	asked.answer(value("v"))
	a.want("v", "l2")
	s.wants(wire.OpLease).answer(value("w"))
	next.want("w", "l2")
	b := s.call(1, "b", l.load, client.LoadOptions{})
	s.wants(wire.OpLease).answer(value("v"))
	b.want("v", "l2")
	if _, err := s.GetOrLoad(t.Context(), "c", l.load, client.LoadOptions{TTL: -1}); !errors.Is(err, cachesidecar.ErrBadRequest) {
		t.Errorf("a TTL below zero: %v", err)
	}
}
