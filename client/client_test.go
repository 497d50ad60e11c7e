package client_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// serve runs a sidecar on a socket and returns a function that stops it.
func serve(t testing.TB, path string) (stop func()) {
	t.Helper()
	return serveWith(t, sidecar.Config{Socket: path, L2Size: 64 << 20})
}

func serveWith(t testing.TB, cfg sidecar.Config) (stop func()) {
	t.Helper()
	_, stop = run(t, cfg)
	return stop
}

// run runs a sidecar until stop is called, or the test ends.
func run(t testing.TB, cfg sidecar.Config) (s *sidecar.Sidecar, stop func()) {
	t.Helper()
	s, err := sidecar.New(cfg)
	testenv.Must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			testenv.Should(t, <-done)
		})
	}
	t.Cleanup(stop)
	return s, stop
}

// dial returns a client of the socket alone, whose default timeouts are longer than usual.
func dial(t testing.TB, cfg client.Config) *client.Client {
	t.Helper()
	cfg.NoSharedMemory = true
	return dialAny(t, cfg)
}

// dialAny is dial, with the shared memory unless cfg says otherwise.
func dialAny(t testing.TB, cfg client.Config) *client.Client {
	t.Helper()
	cfg.DialTimeout, cfg.RequestTimeout = cmp.Or(cfg.DialTimeout, time.Minute), cmp.Or(cfg.RequestTimeout, time.Minute)
	if cfg.Socket == "" {
		cfg.Socket = filepath.Join(t.TempDir(), "s")
		serve(t, cfg.Socket)
	}
	c, err := client.Dial(t.Context(), cfg)
	testenv.Must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestCalls(t *testing.T) {
	c := dial(t, client.Config{})
	ctx := t.Context()
	v1, err := c.Set(ctx, "k", []byte("1"), cachesidecar.SetOptions{Flags: 7, TTL: time.Minute})
	testenv.Must(t, err)
	it, err := c.Get(ctx, "k", cachesidecar.GetOptions{})
	if err != nil || string(it.Value) != "1" || it.Flags != 7 || it.Version != v1 || it.Source != "l2" || it.TTL > time.Minute || it.TTL < 50*time.Second {
		t.Errorf("Get = %+v, %v", it, err)
	}
	if _, err := c.Get(ctx, "none", cachesidecar.GetOptions{}); !errors.Is(err, cachesidecar.ErrNotFound) {
		t.Errorf("Get of nothing: %v", err)
	}
	if _, err := c.Add(ctx, "k", nil, cachesidecar.SetOptions{}); !errors.Is(err, cachesidecar.ErrExists) {
		t.Errorf("Add: %v", err)
	}
	if _, err := c.Replace(ctx, "none", nil, cachesidecar.SetOptions{}); !errors.Is(err, cachesidecar.ErrNotFound) {
		t.Errorf("Replace: %v", err)
	}
	var ve *cachesidecar.VersionError
	if _, err := c.CompareAndSwap(ctx, "k", nil, v1+1, cachesidecar.SetOptions{}); !errors.As(err, &ve) || ve.Version != v1 || !errors.Is(err, cachesidecar.ErrExists) {
		t.Errorf("CompareAndSwap: %v", err)
	}
	if v, err := c.CompareAndSwap(ctx, "k", []byte("41"), v1, cachesidecar.SetOptions{}); err != nil || v <= v1 {
		t.Errorf("CompareAndSwap = %d, %v", v, err)
	}
	if n, err := c.Incr(ctx, "k", 1, cachesidecar.IncrOptions{}); n != 42 || err != nil {
		t.Errorf("Incr = %d, %v", n, err)
	}
	if n, err := c.Incr(ctx, "n", 1, cachesidecar.IncrOptions{Create: true, Initial: -7}); n != -7 || err != nil {
		t.Errorf("Incr with Create = %d, %v", n, err)
	}
	if _, err := c.Incr(ctx, "none", 1, cachesidecar.IncrOptions{}); !errors.Is(err, cachesidecar.ErrNotFound) {
		t.Errorf("Incr of nothing: %v", err)
	}
	testenv.Should(t, c.Touch(ctx, "k", cachesidecar.TouchOptions{NoExpiry: true}))
	if it, err := c.Get(ctx, "k", cachesidecar.GetOptions{}); err != nil || it.TTL != 0 {
		t.Errorf("after Touch: %+v, %v", it, err)
	}
	if n, err := c.DeleteMulti(ctx, []string{"k", "none"}, cachesidecar.DeleteOptions{}); n != 1 || err != nil {
		t.Errorf("DeleteMulti = %d, %v", n, err)
	}
	if err := c.Delete(ctx, "n", cachesidecar.DeleteOptions{ReplicaLag: -1}); !errors.Is(err, cachesidecar.ErrBadRequest) {
		t.Errorf("Delete with a negative hold: %v", err)
	}
	if err := c.Delete(ctx, "none", cachesidecar.DeleteOptions{ReplicaLag: math.MaxInt64}); !errors.Is(err, cachesidecar.ErrNotFound) {
		t.Errorf("Delete with a long hold: %v", err)
	}
	if n, err := c.DeleteMulti(ctx, []string{"none"}, cachesidecar.DeleteOptions{}); n != 0 || err != nil {
		t.Errorf("DeleteMulti of nothing = %d, %v", n, err)
	}
	if err := c.Delete(ctx, "none", cachesidecar.DeleteOptions{}); !errors.Is(err, cachesidecar.ErrNotFound) {
		t.Errorf("Delete of nothing: %v", err)
	}
	testenv.Should(t, c.Ping(ctx))
	if st, err := c.Stats(ctx); err != nil || st.L2.Entries != 1 {
		t.Errorf("Stats = %+v, %v", st.L2, err)
	}
	if m, err := c.Members(ctx); err != nil || len(m) != 1 || m[0].Node == "" {
		t.Errorf("Members = %+v, %v", m, err)
	}
	if p, err := c.Ring(ctx, "k"); err != nil || p.AssignedOwner == "" || p.AssignedOwner != p.Owner {
		t.Errorf("Ring = %+v, %v", p, err)
	}
	testenv.Should(t, c.Flush(ctx, cachesidecar.FlushOptions{All: true}))
	if _, err := c.Get(ctx, "n", cachesidecar.GetOptions{}); !errors.Is(err, cachesidecar.ErrNotFound) {
		t.Errorf("after Flush: %v", err)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	c := dial(t, client.Config{})
	for _, tc := range []struct {
		name string
		err  error
		is   error
		want string
	}{
		{"key", testenv.ErrorOf(c.Get(t.Context(), "", cachesidecar.GetOptions{})), cachesidecar.ErrBadRequest, "a key has 1 to 1024"},
		{"namespace", testenv.ErrorOf(c.InNamespace("Bad").Set(t.Context(), "k", nil, cachesidecar.SetOptions{})), cachesidecar.ErrBadRequest, "1 to 64 of a-z"},
		{"value", testenv.ErrorOf(c.Set(t.Context(), "k", make([]byte, 5<<20), cachesidecar.SetOptions{})), cachesidecar.ErrTooLarge, "raise max_value"},
		{"ttl", testenv.ErrorOf(c.Set(t.Context(), "k", nil, cachesidecar.SetOptions{TTL: -1})), cachesidecar.ErrBadRequest, "give 1ms to 8760h"},
		{"long ttl", c.Touch(t.Context(), "k", cachesidecar.TouchOptions{TTL: 9000 * time.Hour}), cachesidecar.ErrBadRequest, "give 1ms to 8760h"},
	} {
		if !errors.Is(tc.err, tc.is) || !strings.Contains(tc.err.Error(), tc.want) {
			t.Errorf("%s: %v, want %v with %q", tc.name, tc.err, tc.is, tc.want)
		}
	}
}

// TestGetMulti asks for more keys than fit into a request, and for more bytes than fit
// into an answer.
func TestGetMulti(t *testing.T) {
	c := dial(t, client.Config{})
	var keys []string
	for i := range 2500 {
		keys = append(keys, fmt.Sprint("k", i))
		if i%2 == 0 {
			value := []byte(keys[i])
			if i < 14 {
				value = bytes.Repeat(value, 2<<20/len(value)) // 14 MiB, and once more below
			}
			testenv.Must(t, testenv.ErrorOf(c.Set(t.Context(), keys[i], value, cachesidecar.SetOptions{})))
		}
	}
	for i := 0; i < 14; i += 2 {
		keys = append(keys, keys[i])
	}
	keys = append([]string{keys[0], keys[2], keys[4], keys[6]}, keys...)
	found, err := c.GetMulti(t.Context(), keys, cachesidecar.GetOptions{})
	if err != nil || len(found) != 1250 {
		t.Errorf("%d found, %v", len(found), err)
	}
	for k, it := range found {
		if !bytes.HasPrefix(it.Value, []byte(k)) {
			t.Errorf("%s has another's value", k)
		}
	}
	if _, err := c.GetMulti(t.Context(), []string{"a", ""}, cachesidecar.GetOptions{}); !errors.Is(err, cachesidecar.ErrBadRequest) {
		t.Errorf("an empty key: %v", err)
	}
}

// TestReconnect checks that calls fail fast while the sidecar is away, and work again
// after it is back.
func TestReconnect(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if _, err := client.Dial(t.Context(), client.Config{Socket: path}); !errors.Is(err, cachesidecar.ErrUnavailable) {
		t.Errorf("no sidecar there: %v", err)
	}
	stop := serve(t, path)
	c := dial(t, client.Config{Socket: path})
	testenv.Must(t, testenv.ErrorOf(c.Set(t.Context(), "k", []byte("1"), cachesidecar.SetOptions{})))
	stop()
	client.PassMove(t, c)
	ctx := testenv.Context(t)
	for range 100 {
		if _, err := c.Get(ctx, "k", cachesidecar.GetOptions{}); !errors.Is(err, cachesidecar.ErrUnavailable) {
			t.Errorf("while it is away: %v", err)
		}
		if _, err := c.Set(ctx, "k", nil, cachesidecar.SetOptions{}); !errors.Is(err, cachesidecar.ErrUnavailable) && !errors.Is(err, cachesidecar.ErrTimeout) {
			t.Errorf("while it is away: %v", err)
		}
	}
	if err := ctx.Err(); err != nil {
		t.Errorf("100 calls without a sidecar: %v", err)
	}
	serve(t, path)
	testenv.Eventually(t, "the new sidecar, which is empty, answers", func() bool {
		_, err := c.Get(t.Context(), "k", cachesidecar.GetOptions{})
		return errors.Is(err, cachesidecar.ErrNotFound)
	})
}

// late is a context whose deadline passes when over is closed.
type late struct {
	context.Context
	over chan struct{}
}

func (l late) Done() <-chan struct{} { return l.over }

func (l late) Err() error {
	select {
	case <-l.over:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// TestDeadlines uses a sidecar that accepts connections and sends nothing.
func TestDeadlines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	testenv.Must(t, err)
	defer ln.Close()
	if _, err := client.Dial(t.Context(), client.Config{Socket: path}); !errors.Is(err, cachesidecar.ErrUnavailable) || !strings.Contains(err.Error(), "no HELLO") {
		t.Errorf("a silent sidecar: %v", err)
	}
	ctx := late{t.Context(), make(chan struct{})}
	go func() {
		for range 2 { // the Dial above, and the one below
			if nc, err := ln.Accept(); err == nil {
				t.Cleanup(func() { nc.Close() })
			}
		}
		close(ctx.over)
	}()
	if _, err := client.Dial(ctx, client.Config{Socket: path, DialTimeout: time.Hour}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent sidecar, with a deadline: %v", err)
	}
}

// TestFewerPlacesThanConnections checks that a sidecar with no place for a client's
// further connections serves all keys over the first connection.
func TestFewerPlacesThanConnections(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	serveWith(t, sidecar.Config{Socket: path, L2Size: 64 << 20, MaxConnections: 1})
	c := dial(t, client.Config{Socket: path, Conns: 4})
	for i := range 32 { // the keys spread over the four connections by chance
		if _, err := c.Set(t.Context(), fmt.Sprint(i), []byte("v"), cachesidecar.SetOptions{}); err != nil {
			t.Fatalf("key %d: %v", i, err)
		}
	}
}

func TestContext(t *testing.T) {
	c := dial(t, client.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Get(ctx, "k", cachesidecar.GetOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	over := late{t.Context(), make(chan struct{})}
	close(over.over)
	if _, err := c.Get(over, "k", cachesidecar.GetOptions{}); !errors.Is(err, cachesidecar.ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deadline over: %v", err)
	}
	c.Close()
	if _, err := c.Get(t.Context(), "k", cachesidecar.GetOptions{}); !errors.Is(err, cachesidecar.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestFailOpen(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	t.Parallel() // a sidecar that has just left is awaited, for as long as it is in life
	load := func(context.Context, string) ([]byte, error) { return []byte("loaded"), nil }
	for _, closed := range []bool{false, true} {
		t.Run(fmt.Sprint("closed ", closed), func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "s")
			stop := serve(t, path)
			c := dial(t, client.Config{Socket: path, FailClosed: closed})
			stop()
			it, err := c.GetOrLoad(t.Context(), "k", load, client.LoadOptions{})
			if !closed && (err != nil || string(it.Value) != "loaded") || closed && !errors.Is(err, cachesidecar.ErrUnavailable) {
				t.Errorf("%q, %v", it.Value, err)
			}
		})
	}
}

// TestLazy checks that Dial succeeds without a sidecar, and that the first call that
// finds one connects.
func TestLazy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	c := dial(t, client.Config{Socket: path, Lazy: true})
	if _, err := c.Get(t.Context(), "k", cachesidecar.GetOptions{}); !errors.Is(err, cachesidecar.ErrUnavailable) {
		t.Errorf("no sidecar there: %v", err)
	}
	serve(t, path)
	testenv.Succeeds(t, "a write", func() error { return testenv.ErrorOf(c.Set(t.Context(), "k", nil, cachesidecar.SetOptions{})) })
}

// TestConcurrent uses one client from many goroutines, with values of all sizes.
func TestConcurrent(t *testing.T) {
	testenv.Takes(t, time.Second)
	c := dial(t, client.Config{})
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := range 200 {
				key := fmt.Sprint(g, ".", i%10)
				want := bytes.Repeat([]byte(key), 1+i*i%20_000)
				testenv.Should(t, testenv.ErrorOf(c.Set(t.Context(), key, want, cachesidecar.SetOptions{})))
				if it, err := c.Get(t.Context(), key, cachesidecar.GetOptions{}); err != nil || !bytes.Equal(it.Value, want) {
					t.Errorf("%s: %d bytes, want %d, %v", key, len(it.Value), len(want), err)
				}
			}
		})
	}
	wg.Wait()
}

// TestHitAllocatesLittle checks that a hit allocates at most once beside the value.
func TestHitAllocatesLittle(t *testing.T) {
	c := dial(t, client.Config{Conns: 1})
	testenv.Must(t, testenv.ErrorOf(c.Set(t.Context(), "key", make([]byte, 100), cachesidecar.SetOptions{})))
	ctx := context.Background()
	testenv.Allocates(t, "a hit", 2, 1000, func() {
		testenv.Must(t, testenv.ErrorOf(c.Get(ctx, "key", cachesidecar.GetOptions{})))
	})
}

func BenchmarkGet(b *testing.B) {
	c := dial(b, client.Config{})
	if _, err := c.Set(context.Background(), "key", make([]byte, 100), cachesidecar.SetOptions{}); err != nil {
		b.Fatal(err)
	}
	b.Run("alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Get(context.Background(), "key", cachesidecar.GetOptions{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("together", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(64)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := c.Get(context.Background(), "key", cachesidecar.GetOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}

// TestMemcachedOperations makes the calls that memcached's protocol has too.
func TestMemcachedOperations(t *testing.T) {
	c := dial(t, client.Config{})
	ctx := t.Context()
	if _, err := c.Append(ctx, "a", []byte("5"), cachesidecar.AppendOptions{}); !errors.Is(err, cachesidecar.ErrNotFound) {
		t.Errorf("Append to nothing: %v", err)
	}
	first, err := c.Append(ctx, "a", []byte("5"), cachesidecar.AppendOptions{Create: true, Flags: 3})
	if err != nil {
		t.Error(err)
	}
	if v, err := c.Prepend(ctx, "a", []byte("1"), cachesidecar.AppendOptions{Flags: 4}); err != nil || v <= first {
		t.Errorf("Prepend = %d, %v", v, err)
	}
	if n, err := c.IncrUnsigned(ctx, "a", 1<<64-1, cachesidecar.UnsignedOptions{}); n != 14 || err != nil {
		t.Errorf("IncrUnsigned = %d, %v", n, err)
	}
	if n, err := c.DecrUnsigned(ctx, "a", 20, cachesidecar.UnsignedOptions{}); n != 0 || err != nil {
		t.Errorf("DecrUnsigned = %d, %v", n, err)
	}
	o := cachesidecar.UnsignedOptions{Create: true, Initial: 1<<64 - 1}
	if n, err := c.IncrUnsigned(ctx, "u", 5, o); n != 1<<64-1 || err != nil {
		t.Errorf("IncrUnsigned with Create = %d, %v", n, err)
	}
	it, err := c.GetAndTouch(ctx, "a", time.Minute)
	if err != nil || string(it.Value) != "0" || it.Flags != 3 || it.TTL != time.Minute || it.Source != "" {
		t.Errorf("GetAndTouch: %+v, %v", it, err)
	}
	if it, err := c.Get(ctx, "a", cachesidecar.GetOptions{}); err != nil || it.TTL > time.Minute {
		t.Errorf("after GetAndTouch: %+v, %v", it, err)
	}
	testenv.Should(t, c.Delete(ctx, "a", cachesidecar.DeleteOptions{Soft: true}))
	if _, err := c.GetAndTouch(ctx, "a", time.Minute); !errors.Is(err, cachesidecar.ErrNotFound) {
		t.Errorf("GetAndTouch of a softened value: %v", err)
	}
	if _, err := c.GetAndTouch(ctx, "a", 0); !errors.Is(err, cachesidecar.ErrBadRequest) {
		t.Errorf("GetAndTouch without a TTL: %v", err)
	}
}
