package sidecar

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/verify"
	"github.com/cachesidecar/cachesidecar/loader"
)

func TestEmbedded(t *testing.T) {
	s := start(t, Config{NoSocket: true})
	ctx := t.Context()
	v1, err := s.Set(ctx, "users", "k", b("1"), cachesidecar.SetOptions{Flags: 5, TTL: time.Minute})
	testenv.Must(t, err)
	got, err := s.Get(ctx, "users", "k", cachesidecar.GetOptions{})
	if err != nil || string(got.Value) != "1" || got.Flags != 5 || got.Version != v1 || got.TTL <= 50*time.Second || got.TTL > time.Minute {
		t.Errorf("%+v, %v", got, err)
	}
	for _, tc := range []struct {
		name string
		key  string
		set  func(key string) (uint64, error)
		want error
	}{
		{"absent, but it is there", "k", func(key string) (uint64, error) {
			return s.Add(ctx, "users", key, b("2"), cachesidecar.SetOptions{})
		}, cachesidecar.ErrExists},
		{"present, but it is not", "x", func(key string) (uint64, error) {
			return s.Replace(ctx, "users", key, b("2"), cachesidecar.SetOptions{})
		}, cachesidecar.ErrNotFound},
		{"another version", "k", func(key string) (uint64, error) {
			return s.CompareAndSwap(ctx, "users", key, b("2"), v1+1, cachesidecar.SetOptions{})
		}, cachesidecar.ErrExists},
		{"a version of nothing", "x", func(key string) (uint64, error) {
			return s.CompareAndSwap(ctx, "users", key, b("2"), v1, cachesidecar.SetOptions{})
		}, cachesidecar.ErrNotFound},
		{"this version", "k", func(key string) (uint64, error) {
			return s.CompareAndSwap(ctx, "users", key, b("2"), v1, cachesidecar.SetOptions{NoExpiry: true})
		}, nil},
	} {
		if _, err := tc.set(tc.key); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
	if v, err := s.Get(ctx, "users", "k", cachesidecar.GetOptions{}); err != nil || v.TTL != 0 {
		t.Errorf("no expiry: %+v, %v", v, err)
	}
	if err := s.Touch(ctx, "users", "k", cachesidecar.TouchOptions{TTL: time.Hour}); err != nil {
		t.Error(err)
	}
	if err := s.Touch(ctx, "users", "x", cachesidecar.TouchOptions{TTL: time.Hour}); !errors.Is(err, cachesidecar.ErrNotFound) {
		t.Errorf("touch of nothing: %v", err)
	}
	for _, want := range []int64{10, 13} {
		if n, err := s.Incr(ctx, "users", "n", 3, cachesidecar.IncrOptions{Create: true, Initial: 10}); n != want || err != nil {
			t.Errorf("Incr = %d, %v, want %d", n, err, want)
		}
	}
	if _, err := s.Incr(ctx, "users", "m", 3, cachesidecar.IncrOptions{}); !errors.Is(err, cachesidecar.ErrNotFound) {
		t.Errorf("Incr of nothing: %v", err)
	}
	items, err := s.GetMulti(ctx, "users", []string{"k", "x", "n"}, cachesidecar.GetOptions{})
	if err != nil || len(items) != 2 || string(items["k"].Value) != "2" || string(items["n"].Value) != "13" || items["n"].Source != "l2" {
		t.Errorf("GetMulti: %+v, %v", items, err)
	}
	if err := s.Delete(ctx, "users", "x", cachesidecar.DeleteOptions{}); !errors.Is(err, cachesidecar.ErrNotFound) {
		t.Errorf("Delete of nothing: %v", err)
	}
	if n, err := s.DeleteMulti(ctx, "users", []string{"k", "x"}, cachesidecar.DeleteOptions{}); n != 1 || err != nil {
		t.Errorf("Delete = %d, %v", n, err)
	}
	if err := s.Flush(ctx, "", cachesidecar.FlushOptions{All: true}); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(ctx, "users", "n", cachesidecar.GetOptions{}); !errors.Is(err, cachesidecar.ErrNotFound) {
		t.Errorf("after the flush: %v", err)
	}
}

// late is a context whose deadline has passed.
type late struct{ context.Context }

func (late) Deadline() (time.Time, bool) { return testenv.Date().Add(-time.Second), true }
func (late) Err() error                  { return context.DeadlineExceeded }

func TestEmbeddedRefuses(t *testing.T) {
	s := start(t, Config{NoSocket: true})
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Get(cancelled, "users", "k", cachesidecar.GetOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := s.Get(late{t.Context()}, "users", "k", cachesidecar.GetOptions{}); !errors.Is(err, cachesidecar.ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("too late: %v", err)
	}
	long := string(make([]byte, 1025))
	bad := cachesidecar.ErrBadRequest
	for _, tc := range []struct {
		words string
		is    error
		err   error
	}{
		{"1 to 64 of a-z", bad, second(s.Set(t.Context(), "Users", "k", nil, cachesidecar.SetOptions{}))},
		{"has 0 bytes", bad, second(s.Set(t.Context(), "users", "", nil, cachesidecar.SetOptions{}))},
		{"a TTL of -1ns", bad, second(s.Set(t.Context(), "users", "k", nil, cachesidecar.SetOptions{TTL: -1}))},
		{"a TTL of 8784h", bad, second(s.Set(t.Context(), "users", "k", nil, cachesidecar.SetOptions{TTL: 366 * 24 * time.Hour}))},
		{"max_value is", cachesidecar.ErrTooLarge, second(s.Set(t.Context(), "users", "k", make([]byte, 1<<20), cachesidecar.SetOptions{}))},
		{"has 1025 bytes:", bad, second(s.DeleteMulti(t.Context(), "users", []string{long}, cachesidecar.DeleteOptions{}))},
		{"has 1025 bytes:", bad, second(s.GetMulti(t.Context(), "users", []string{long}, cachesidecar.GetOptions{}))},
		{"a replica lag of -1ns", bad, s.Delete(t.Context(), "users", "k", cachesidecar.DeleteOptions{ReplicaLag: -1})},
		{"VERIFY's own", bad, s.Flush(t.Context(), verify.Namespace, cachesidecar.FlushOptions{})},
	} {
		if !errors.Is(tc.err, tc.is) || !strings.Contains(tc.err.Error(), tc.words) {
			t.Errorf("%v, want %v with %q", tc.err, tc.is, tc.words)
		}
	}
}

// TestEmbeddedErrors checks that an embedding program can tell apart an origin that
// fails, an origin that is busy, and a key that the origin does not have; and that it can
// get a stale value in place of an error.
func TestEmbeddedErrors(t *testing.T) {
	fails, absent := errors.New("the disk is broken"), false
	source := loader.SourceFunc(func(context.Context, []byte) (loader.Value, error) {
		switch {
		case absent:
			return loader.Value{}, loader.ErrAbsent
		case fails != nil:
			return loader.Value{}, fails
		}
		return loader.Value{Bytes: []byte("loaded")}, nil
	})
	s := start(t, Config{NoSocket: true, Namespaces: map[string]Namespace{"pages": {
		Origin: loader.Custom{Source: source}, StaleIfError: time.Minute, NegativeTTL: new(time.Duration(0)),
		Limits: Limits{Breaker: Breaker{Failures: 2, Open: time.Minute}},
	}}})
	ctx := t.Context()
	get := func(key string, o cachesidecar.GetOptions) error {
		return second(s.Get(ctx, "pages", key, o))
	}
	if err := get("k", cachesidecar.GetOptions{}); !errors.Is(err, cachesidecar.ErrOrigin) {
		t.Errorf("an origin that fails: %v", err)
	}
	if err := get("k", cachesidecar.GetOptions{NoLoad: true}); !errors.Is(err, cachesidecar.ErrNotFound) {
		t.Errorf("without a load: %v", err)
	}
	absent = true
	if err := get("none", cachesidecar.GetOptions{}); !errors.Is(err, cachesidecar.ErrAbsent) {
		t.Errorf("a key that the origin does not have: %v", err)
	}
	absent, fails = false, nil
	if err := get("k", cachesidecar.GetOptions{}); err != nil {
		t.Error(err)
	}
	if err := s.Delete(ctx, "pages", "k", cachesidecar.DeleteOptions{Soft: true}); err != nil {
		t.Error(err)
	}
	fails = errors.New("the disk is broken again")
	if it, err := s.Get(ctx, "pages", "k", cachesidecar.GetOptions{StaleOK: true}); err != nil || !it.Stale || string(it.Value) != "loaded" {
		t.Errorf("a stale value: %+v, %v", it, err)
	}
	busy := error(nil)
	for range 5 {
		busy = get("other", cachesidecar.GetOptions{})
	}
	if !errors.Is(busy, cachesidecar.ErrBusy) {
		t.Errorf("an open breaker: %v", busy)
	}
}

func second[T any](_ T, err error) error { return err }
