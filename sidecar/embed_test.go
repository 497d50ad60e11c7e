package sidecar

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

func TestEmbedded(t *testing.T) {
	s := start(t, Config{NoSocket: true})
	ctx := t.Context()
	v1, err := s.Set(ctx, "users", b("k"), b("1"), SetOptions{Flags: 5, TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Get(ctx, "users", b("k"))
	if err != nil || string(got.Data) != "1" || got.Flags != 5 || got.Version != v1 || got.TTL <= 59*time.Second || got.TTL > time.Minute {
		t.Errorf("%+v, %v", got, err)
	}
	for _, tc := range []struct {
		name string
		key  string
		o    SetOptions
		want error
	}{
		{"absent, but it is there", "k", SetOptions{Condition: IfAbsent}, ErrExists},
		{"present, but it is not", "x", SetOptions{Condition: IfPresent}, ErrNotFound},
		{"another version", "k", SetOptions{Condition: IfVersion, Version: v1 + 1}, ErrExists},
		{"a version of nothing", "x", SetOptions{Condition: IfVersion, Version: v1}, ErrNotFound},
		{"this version", "k", SetOptions{Condition: IfVersion, Version: v1, NoExpiry: true}, nil},
	} {
		if _, err := s.Set(ctx, "users", b(tc.key), b("2"), tc.o); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
	if v, err := s.Get(ctx, "users", b("k")); err != nil || v.TTL != 0 {
		t.Errorf("no expiry: %+v, %v", v, err)
	}
	if err := s.Touch(ctx, "users", b("k"), time.Hour); err != nil {
		t.Error(err)
	}
	if err := s.Touch(ctx, "users", b("x"), time.Hour); !errors.Is(err, ErrNotFound) {
		t.Errorf("touch of nothing: %v", err)
	}
	initial := int64(10)
	for _, want := range []int64{10, 13} {
		if n, err := s.Incr(ctx, "users", b("n"), 3, &initial); n != want || err != nil {
			t.Errorf("Incr = %d, %v, want %d", n, err, want)
		}
	}
	if _, err := s.Incr(ctx, "users", b("m"), 3, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("Incr of nothing: %v", err)
	}
	if n, err := s.Delete(ctx, "users", b("k"), b("x")); n != 1 || err != nil {
		t.Errorf("Delete = %d, %v", n, err)
	}
	if err := s.Flush(ctx, ""); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(ctx, "users", b("n")); !errors.Is(err, ErrNotFound) {
		t.Errorf("after the flush: %v", err)
	}
}

func TestEmbeddedRefuses(t *testing.T) {
	s := start(t, Config{NoSocket: true})
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Get(cancelled, "users", b("k")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	for name, err := range map[string]error{
		"1 to 64 of a-z":  second(s.Set(t.Context(), "Users", b("k"), nil, SetOptions{})),
		"has 0 bytes":     second(s.Set(t.Context(), "users", nil, nil, SetOptions{})),
		"negative":        second(s.Set(t.Context(), "users", b("k"), nil, SetOptions{TTL: -1})),
		"above a year":    second(s.Set(t.Context(), "users", b("k"), nil, SetOptions{TTL: 366 * 24 * time.Hour})),
		"max_value is":    second(s.Set(t.Context(), "users", b("k"), make([]byte, 1<<20), SetOptions{})),
		"has 1025 bytes:": second(s.Delete(t.Context(), "users", make([]byte, 1025))),
	} {
		var we *wire.Error
		if !errors.As(err, &we) || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want %q", err, name)
		}
	}
}

func second[T any](_ T, err error) error { return err }
