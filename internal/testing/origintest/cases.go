package origintest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// ErrAny stands for any error that may be retried.
var ErrAny = errors.New("any error that is no answer")

// Never is a timeout that no case waits for. What ends by it goes on for too long.
const Never = 10 * testenv.Patience

// Case is a load and its expected result.
type Case struct {
	Name   string
	Source loader.Source
	Key    string
	Want   loader.Value
	Err    error  // nil, a sentinel of package loader, or ErrAny
	Secret string // must not be in the error
}

// Run makes the loads.
func Run(t *testing.T, cases []Case) {
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			ctx := testenv.Context(t)
			got, err := c.Source.Load(ctx, []byte(c.Key))
			check(t, ctx, err, c.Err, c.Secret)
			same := string(got.Bytes) == string(c.Want.Bytes) && got.Flags == c.Want.Flags &&
				got.TTL == c.Want.TTL && got.NoStore == c.Want.NoStore
			if !same {
				t.Errorf("got %+v (%q), want %+v (%q)", got, got.Bytes, c.Want, c.Want.Bytes)
			}
		})
	}
}

// Keys returns all keys of a lister, sorted and without duplicates.
func Keys(l loader.Lister) ([]string, error) { return keys(context.Background(), l) }

func keys(ctx context.Context, l loader.Lister) ([]string, error) {
	var keys []string
	err := l.Keys(ctx, func(key []byte) error {
		keys = append(keys, string(key))
		return nil
	})
	slices.Sort(keys)
	return slices.Compact(keys), err
}

// List is a listing and its expected result.
type List struct {
	Name   string
	Lister loader.Lister
	Want   []string // sorted; not checked if Err is set
	Err    error    // nil, a sentinel of package loader, or ErrAny
	Secret string   // must not be in the error
}

// errEnough is the error with which a caller stops a listing.
var errEnough = errors.New("enough")

// RunLists makes the listings.
func RunLists(t *testing.T, lists []List) {
	for _, l := range lists {
		t.Run(l.Name, func(t *testing.T) {
			ctx := testenv.Context(t)
			got, err := keys(ctx, l.Lister)
			check(t, ctx, err, l.Err, l.Secret)
			if l.Err != nil {
				return
			}
			if !slices.Equal(got, l.Want) {
				t.Errorf("got %q, want %q", got, l.Want)
			}
			// The caller stops after n keys.
			for n := 0; n < len(l.Want); n += 1 + len(l.Want)/3 {
				seen := 0
				err := l.Lister.Keys(ctx, func([]byte) error {
					if seen++; seen > n {
						return errEnough
					}
					return nil
				})
				if !errors.Is(err, errEnough) || seen != n+1 || ctx.Err() != nil {
					t.Errorf("a caller who wants %d has got %d, and %v", n, seen, err)
				}
			}
		})
	}
}

// ErrUnknown stands for any error after which the outcome of the write is unknown.
var ErrUnknown = errors.New("any error that does not say that nothing was written")

// Write is a write and its expected result.
type Write struct {
	Name   string
	Writer loader.Writer
	Key    string
	Value  string
	Delete bool
	Err    error  // nil, loader.ErrNotWritten, loader.ErrBadKey, or ErrUnknown
	Secret string // must not be in the error
	Hangs  bool   // it lasts as long as the writer allows: such writes run beside each other
}

// Hasty is the time of a write that hangs. It includes connecting, which a busy machine may
// delay.
const Hasty = 3 * time.Second

// RunWrites makes the writes.
func RunWrites(t *testing.T, writes []Write) {
	t.Run("writes", func(t *testing.T) {
		for _, w := range writes {
			t.Run(w.Name, func(t *testing.T) {
				if w.Hangs {
					t.Parallel()
				}
				w.run(t)
			})
		}
	})
}

func (w Write) run(t *testing.T) {
	ctx := testenv.Context(t)
	var err error
	if w.Delete {
		err = w.Writer.Delete(ctx, []byte(w.Key))
	} else {
		v := loader.Value{Bytes: []byte(w.Value), Flags: 7}
		err = w.Writer.Store(ctx, []byte(w.Key), v)
	}
	check(t, ctx, err, w.Err, w.Secret)
	if errors.Is(w.Err, loader.ErrBadKey) && !errors.Is(err, loader.ErrNotWritten) {
		t.Errorf("an error about the key does not say that nothing was written: %v", err)
	}
}

func check(t *testing.T, ctx context.Context, got, want error, secret string) {
	t.Helper()
	if ctx.Err() != nil {
		t.Errorf("it did not end by itself")
	}
	switch {
	case want == nil && got != nil:
		t.Fatalf("got %v", got)
	case errors.Is(want, ErrAny):
		if loader.Answered(got) {
			t.Fatalf("got %v, want an error that may be retried", got)
		}
	case errors.Is(want, ErrUnknown):
		if got == nil || errors.Is(got, loader.ErrNotWritten) {
			t.Fatalf("got %v, want an error that does not say what was done", got)
		}
	case !errors.Is(got, want):
		t.Fatalf("got %v, want %v", got, want)
	}
	if got != nil && secret != "" && strings.Contains(got.Error(), secret) {
		t.Errorf("the error shows a secret: %v", got)
	}
}
