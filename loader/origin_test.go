package loader_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// TestCustomMaxValue checks that a custom origin keeps to OriginOptions.MaxValue, and
// that zero is the default.
func TestCustomMaxValue(t *testing.T) {
	size := 0
	source := loader.SourceFunc(func(context.Context, []byte) (loader.Value, error) {
		return loader.Value{Bytes: make([]byte, size)}, nil
	})
	for _, tc := range []struct {
		most, size int
		want       error
	}{
		{0, 1, nil},
		{0, loader.DefaultMaxValue, nil},
		{0, loader.DefaultMaxValue + 1, loader.ErrTooLarge},
		{100, 100, nil},
		{100, 101, loader.ErrTooLarge},
	} {
		o, err := loader.Custom{Source: source}.Open(loader.OriginOptions{MaxValue: tc.most})
		testenv.Must(t, err)
		size = tc.size
		if _, err := o.Load(context.Background(), []byte("k")); !errors.Is(err, tc.want) {
			t.Errorf("%d bytes, MaxValue %d: %v, want %v", tc.size, tc.most, err, tc.want)
		}
	}
}

// TestOptions checks which options are refused, and what is filled in.
func TestOptions(t *testing.T) {
	for _, o := range []loader.OriginOptions{{Timeout: -1}, {MaxValue: -1}, {MaxValue: 2 << 30}} {
		if _, err := o.WithDefaults("kind", time.Second, false); err == nil {
			t.Errorf("%+v were taken", o)
		}
	}
	if _, err := (loader.OriginOptions{}).WithDefaults("kind", time.Second, true); err == nil {
		t.Error("settings of writes were taken without write-through")
	}
	o, err := loader.OriginOptions{WriteThrough: true}.WithDefaults("kind", time.Second, true)
	if err != nil || o.Timeout != time.Second || o.MaxValue != loader.DefaultMaxValue {
		t.Errorf("%+v, %v", o, err)
	}
}
