package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// goPlayer plays conversations with the Go client.
type goPlayer struct {
	c      *client.Client
	failed error // of Dial: every call has it
	came   func(ctx context.Context, n int)
	seen   func() int
	last   atomic.Uint64 // the version of the latest get_item
}

func newGoPlayer(p played, i int, e *end) *goPlayer {
	cfg := client.Config{
		Socket: p.Sockets[i], Namespace: p.Client.Namespace, Lazy: true, MaxCalls: p.Client.MaxInFlight,
		RequestTimeout: ms(p.Client.TimeoutMS), DialTimeout: ms(p.Client.ConnectTimeoutMS),
		FailClosed: !p.Client.FailOpen, NoSharedMemory: !p.Client.SharedMemory,
	}
	if p.Client.NearCache {
		cfg.NearCache.Bytes = 16 << 20
	}
	g := &goPlayer{came: func(context.Context, int) {}, seen: func() int { return 0 }}
	if x := e.scripted; x != nil {
		g.seen = func() int {
			x.mu.Lock()
			defer x.mu.Unlock()
			return x.came
		}
		g.came = func(ctx context.Context, n int) { _ = x.until(ctx, func() bool { return x.came >= n }) }
	}
	g.c, g.failed = client.Dial(context.Background(), cfg)
	return g
}

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// play makes the calls and returns what differs from what they want.
func (g *goPlayer) play(steps []step) error {
	if g.c != nil {
		defer g.c.Close()
	}
	for i, s := range steps {
		if err := g.step(s); err != nil {
			b, _ := json.Marshal(s)
			return fmt.Errorf("call %d, %s: %w", i+1, short(string(b)), err)
		}
	}
	return nil
}

func (g *goPlayer) step(s step) error {
	switch {
	case s.WaitMS > 0:
		time.Sleep(ms(s.WaitMS))
		return nil
	case s.Together == nil:
		return g.call(s.call, new(atomic.Int64))
	}
	// The client's calls block, so goroutines make them, and their order is not known. Calls
	// of one key begin when the call before them has reached the server.
	var loads atomic.Int64
	errs := make([]error, len(s.Together))
	var wg sync.WaitGroup
	for i, c := range s.Together {
		before := g.seen()
		done := make(chan struct{})
		wg.Go(func() {
			defer close(done)
			errs[i] = g.call(c, &loads)
		})
		if i+1 < len(s.Together) && c.Do != "get_or_set" && sameKey(c, s.Together[i+1]) {
			ctx, cancel := context.WithCancel(context.Background())
			go func() {
				<-done
				cancel()
			}()
			g.came(ctx, before+1)
			cancel()
		}
	}
	wg.Wait()
	if s.Loads != nil && int(loads.Load()) != *s.Loads {
		return fmt.Errorf("%d loads, want %d", loads.Load(), *s.Loads)
	}
	return errors.Join(errs...)
}

func sameKey(a, b call) bool {
	return a.Key != nil && b.Key != nil && bytes.Equal(a.Key.bytes(), b.Key.bytes())
}

// outcome is what a call has brought, in the words of want.
type outcome struct {
	want
	item    *cachesidecar.Item
	items   []*cachesidecar.Item
	deleted int
	err     error
}

func (g *goPlayer) call(c call, loads *atomic.Int64) error {
	for deadline := testenv.Deadline(); ; time.Sleep(10 * time.Millisecond) {
		o := g.do(c, loads)
		if c.Until == nil {
			return o.compare(c)
		}
		if o.item != nil && c.Until.is(o.item.Value, o.item.Flags) == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the value did not come: %v", o.err)
		}
	}
}

func (g *goPlayer) do(c call, loads *atomic.Int64) (o outcome) {
	if g.failed != nil {
		return outcome{err: g.failed}
	}
	ctx := context.Background()
	if c.TimeoutMS > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, ms(c.TimeoutMS))
		defer cancel()
	}
	if c.CancelMS > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		defer time.AfterFunc(ms(c.CancelMS), cancel).Stop()
	}
	switch c.Do {
	case "get", "get_item", "get_many", "get_or_set":
		return g.reads(ctx, c, loads)
	}
	return g.writes(ctx, c)
}

func (g *goPlayer) reads(ctx context.Context, c call, loads *atomic.Int64) (o outcome) {
	var it cachesidecar.Item
	switch c.Do {
	case "get", "get_item":
		it, o.err = g.c.Get(ctx, string(c.Key.bytes()), cachesidecar.GetOptions{Fresh: c.Fresh, StaleOK: c.StaleOK})
		if c.Do == "get_item" {
			g.last.Store(it.Version)
		}
	case "get_many":
		var found map[string]cachesidecar.Item
		keys := make([]string, len(c.Keys))
		for i := range keys {
			keys[i] = string(c.Keys[i].bytes())
		}
		found, o.err = g.c.GetMulti(ctx, keys, cachesidecar.GetOptions{})
		for _, k := range keys {
			if it, ok := found[k]; ok {
				o.items = append(o.items, &it)
			} else {
				o.items = append(o.items, nil)
			}
		}
		return o
	case "get_or_set":
		n := 0
		value, flags, err := c.Load.encode()
		if c.Load.Error {
			err = errLoad
		}
		options := client.LoadOptions{Flags: flags}
		if c.TTLMS != nil {
			options.TTL, options.NoExpiry = ms(int(*c.TTLMS)), *c.TTLMS == 0
		}
		it, o.err = g.c.GetOrLoad(ctx, string(c.Key.bytes()), func(context.Context, string) ([]byte, error) {
			n++
			loads.Add(1)
			return value, err
		}, options)
		o.Loads = &n
	}
	if o.err == nil {
		o.item = &it
	}
	return o
}

var errLoad = errors.New("the loader has failed")

func (g *goPlayer) writes(ctx context.Context, c call) (o outcome) {
	key := ""
	if c.Key != nil {
		key = string(c.Key.bytes())
	}
	b, flags, err := c.Value.encode()
	if err != nil {
		return outcome{err: err}
	}
	set := cachesidecar.SetOptions{Flags: flags}
	if c.TTLMS != nil {
		set.TTL, set.NoExpiry = ms(int(*c.TTLMS)), *c.TTLMS == 0
	}
	switch c.Do {
	case "set":
		_, o.err = g.c.Set(ctx, key, b, set)
	case "add":
		_, o.err = g.c.Add(ctx, key, b, set)
	case "replace":
		_, o.err = g.c.Replace(ctx, key, b, set)
	case "cas":
		version := g.last.Load()
		if n, err := strconv.ParseUint(string(c.Version), 10, 64); err == nil {
			version = n
		}
		_, o.err = g.c.CompareAndSwap(ctx, key, b, version, set)
	case "delete":
		o.err = g.c.Delete(ctx, key, cachesidecar.DeleteOptions{CacheOnly: c.CacheOnly})
	case "delete_many":
		keys := make([]string, len(c.Keys))
		for i := range keys {
			keys[i] = string(c.Keys[i].bytes())
		}
		o.deleted, o.err = g.c.DeleteMulti(ctx, keys, cachesidecar.DeleteOptions{CacheOnly: c.CacheOnly})
	case "touch":
		o.err = g.c.Touch(ctx, key, cachesidecar.TouchOptions{TTL: set.TTL, NoExpiry: set.NoExpiry})
	case "incr":
		options, delta := cachesidecar.IncrOptions{TTL: set.TTL, NoExpiry: set.NoExpiry}, numeral(c.Delta)
		options.Create, options.Initial = c.Initial != nil, numeral(c.Initial)
		n, err := g.c.Incr(ctx, key, delta, options)
		number := strconv.FormatInt(n, 10)
		o.err, o.Number = err, &number
	case "incr_unsigned", "decr_unsigned":
		options, delta := cachesidecar.UnsignedOptions{TTL: set.TTL, NoExpiry: set.NoExpiry}, uint64(numeral(c.Delta))
		options.Create, options.Initial = c.Initial != nil, uint64(numeral(c.Initial))
		count := g.c.IncrUnsigned
		if c.Do == "decr_unsigned" {
			count = g.c.DecrUnsigned
		}
		n, err := count(ctx, key, delta, options)
		number := strconv.FormatUint(n, 10)
		o.err, o.Number = err, &number
	case "append", "prepend":
		join := g.c.Append
		if c.Do == "prepend" {
			join = g.c.Prepend
		}
		_, o.err = join(ctx, key, b, cachesidecar.AppendOptions{
			Create: c.Create, Flags: flags, TTL: set.TTL, NoExpiry: set.NoExpiry,
		})
	case "get_and_touch":
		var it cachesidecar.Item
		if it, o.err = g.c.GetAndTouch(ctx, key, set.TTL); o.err == nil {
			o.item = &it
		}
	case "flush":
		o.err = g.c.Flush(ctx, cachesidecar.FlushOptions{})
	case "ping":
		o.err = g.c.Ping(ctx)
	default:
		o.err = fmt.Errorf("there is no call %q", c.Do)
	}
	return o
}

// numeral returns a number of a call, which a test has read; nil is 0.
func numeral(n *json.Number) int64 {
	if n == nil {
		return 0
	}
	v, err := numberOf(*n)
	if err != nil {
		panic(err)
	}
	return v
}

// kinds are the errors of the Go client, by the kind of the manifest.
var kinds = map[string]error{
	"bad_request": cachesidecar.ErrBadRequest, "too_large": cachesidecar.ErrTooLarge,
	"unauthorized": cachesidecar.ErrUnauthorized, "unavailable": cachesidecar.ErrUnavailable,
	"timeout": cachesidecar.ErrTimeout, "busy": cachesidecar.ErrBusy, "origin": cachesidecar.ErrOrigin,
	"unsupported": cachesidecar.ErrUnsupported, "internal": cachesidecar.ErrInternal,
	"not_stored": cachesidecar.ErrNotStored, "closed": cachesidecar.ErrClosed,
}

// compare says in what the outcome differs from what the call wants.
func (o *outcome) compare(c call) error {
	w := c.Want
	if w == nil {
		return nil
	}
	missed := errors.Is(o.err, cachesidecar.ErrNotFound)
	switch {
	case w.Error != nil && w.Values != nil: // the values beside the failures
		return errors.Join(o.isError(w.Error), o.areItems(w))
	case w.Error != nil:
		return o.isError(w.Error)
	case w.Cancelled:
		return expect(errors.Is(o.err, context.Canceled), o.err)
	case w.LoadError:
		return expect(errors.Is(o.err, errLoad), o.err)
	case w.Miss:
		return expect(missed, o.err)
	case w.Stored != nil && !*w.Stored:
		return expect(missed || errors.Is(o.err, cachesidecar.ErrExists), o.err)
	case w.Touched != nil && !*w.Touched:
		return expect(missed, o.err)
	case w.Deleted != nil && w.Deleted[0] != '[':
		return expect(missed == (string(w.Deleted) == "false") && (missed || o.err == nil), o.err)
	case o.err != nil:
		return o.err
	case w.Deleted != nil:
		return expect(bytes.Count(w.Deleted, []byte("true")) == o.deleted, fmt.Errorf("%d", o.deleted))
	case w.Number != nil:
		return expect(*w.Number == *o.Number, errors.New(*o.Number))
	case w.Loads != nil && *w.Loads != *o.Loads:
		return fmt.Errorf("%d loads, want %d", *o.Loads, *w.Loads)
	case w.Value != nil:
		return w.Value.is(o.item.Value, o.item.Flags)
	case w.Bytes != nil:
		return o.isItem(w)
	case w.Values != nil:
		return o.areItems(w)
	}
	return nil
}

func expect(ok bool, got error) error {
	if ok {
		return nil
	}
	return fmt.Errorf("got %v", got)
}

func (o *outcome) isError(raw json.RawMessage) error {
	var list []string
	if json.Unmarshal(raw, &list) != nil {
		list = []string{""}
		if err := json.Unmarshal(raw, &list[0]); err != nil {
			return err
		}
	}
	for _, kind := range list {
		if kind == "encoding" && o.err == nil {
			return nil // the test of encodings
		}
		if e := kinds[kind]; e != nil && errors.Is(o.err, e) {
			return nil
		}
	}
	return fmt.Errorf("got %v, want an error of %v", o.err, list)
}

func (o *outcome) isItem(w *want) error {
	it := o.item
	if got := hex.EncodeToString(it.Value); got != *w.Bytes {
		return fmt.Errorf("the bytes are %s", got)
	}
	if w.Flags != nil && it.Flags != *w.Flags {
		return fmt.Errorf("flags are %d", it.Flags)
	}
	if w.Version != nil && it.Version != *w.Version {
		return fmt.Errorf("the version is %d", it.Version)
	}
	if w.TTL != nil && *w.TTL != (it.TTL > 0) {
		return fmt.Errorf("the TTL is %v", it.TTL)
	}
	return nil
}

func (o *outcome) areItems(w *want) error {
	if len(o.items) != len(w.Values) {
		return fmt.Errorf("%d values", len(o.items))
	}
	for i, v := range w.Values {
		switch it := o.items[i]; {
		case v == nil && it == nil:
		case v == nil || it == nil:
			return fmt.Errorf("item %d is %v", i, it)
		default:
			if err := v.is(it.Value, it.Flags); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestGoClient plays all conversations with the Go client.
func TestGoClient(t *testing.T) {
	testenv.Takes(t, 7*time.Second)
	testenv.ReadsClock(t, 9*time.Second, "the conversations name their waits, timeouts and cancellations")
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r, err := start(root, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stop)
	all, err := load("")
	if err != nil {
		t.Fatal(err)
	}
	s := &suite{real: r, dir: dir, players: 1, all: all}
	list, err := s.open()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("play", func(t *testing.T) {
		for i, p := range list {
			t.Run(p.Name, func(t *testing.T) {
				t.Parallel()
				if err := newGoPlayer(p, 0, &s.ends[i]).play(p.Calls[0]); err != nil {
					t.Error(err)
				}
			})
		}
	})
	for _, w := range s.close() {
		t.Error(w)
	}
}
