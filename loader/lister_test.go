package loader

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func TestLines(t *testing.T) {
	longest := strings.Repeat("k", kv.MaxKeyLen)
	enough := errors.New("enough")
	for _, tc := range []struct {
		name, list string
		want       []string
		err        error
	}{
		{"nothing", "", nil, nil},
		{"lines", "a\nb\n", []string{"a", "b"}, nil},
		{"no end", "a\nb", []string{"a", "b"}, nil},
		{"CRLF", "a\r\nb\r\nc\r", []string{"a", "b", "c"}, nil},
		{"empty lines", "\n\r\na\n\n", []string{"a"}, nil},
		{"any bytes", "\x00\xff \t\n", []string{"\x00\xff \t"}, nil},
		{"as long as may be", longest + "\n" + longest + "\r\n" + longest, []string{longest, longest, longest}, nil},
		{"too long", "a\n" + longest + "k\nb\n", []string{"a"}, ErrPermanent},
		{"too long without an end", strings.Repeat("k", 10*kv.MaxKeyLen), nil, ErrPermanent},
		{"refused", "a\nenough\nb\nc", []string{"a"}, enough},
		{"refused at the end", "a\nenough", []string{"a"}, enough},
	} {
		for _, step := range []int{1, 3, len(tc.list) + 1} {
			t.Run(fmt.Sprintf("%s by %d", tc.name, step), func(t *testing.T) {
				var got []string
				l := NewLines(List{}.Begin(t.Context(), func(key []byte) error {
					if string(key) == "enough" {
						return enough
					}
					got = append(got, string(key))
					return nil
				}))
				var err error
				for rest := []byte(tc.list); len(rest) > 0 && err == nil; {
					n := min(step, len(rest))
					_, err = l.Write(rest[:n])
					rest = rest[n:]
				}
				if closed := l.Close(); err != nil && !errors.Is(closed, err) || !errors.Is(closed, tc.err) || !errors.Is(l.Err(), tc.err) {
					t.Errorf("Write: %v, Close: %v, want %v", err, closed, tc.err)
				}
				if !slices.Equal(got, tc.want) {
					t.Errorf("got %d keys %.40q, want %d", len(got), got, len(tc.want))
				}
			})
		}
	}
}

// The keys of a list are its lines, however the list is split into writes.
func FuzzLines(f *testing.F) {
	f.Add("a\r\nb\n\n", uint8(1))
	f.Add(strings.Repeat("k", kv.MaxKeyLen)+"\r\n", uint8(200))
	f.Fuzz(func(t *testing.T, list string, step uint8) {
		var want, got []string
		fits := true
		for line := range strings.SplitSeq(list, "\n") {
			if line = strings.TrimSuffix(line, "\r"); len(line) > kv.MaxKeyLen {
				fits = false
				break
			} else if line != "" {
				want = append(want, line)
			}
		}
		l := NewLines(List{}.Begin(t.Context(), func(key []byte) error {
			got = append(got, string(key))
			return nil
		}))
		for rest := []byte(list); len(rest) > 0; {
			n := min(int(step)+1, len(rest))
			if _, err := l.Write(rest[:n]); err != nil {
				break
			}
			rest = rest[n:]
		}
		if err := l.Close(); (err == nil) != fits || !slices.Equal(got, want) {
			t.Errorf("got %q and %v, want %q", got, err, want)
		}
	})
}

// TestListing checks that a list ends once it has given too many keys, of whatever kind, and that it takes its time.
func TestListing(t *testing.T) {
	const most = 1 << 20
	key, none := []byte("k"), []byte{}
	for _, tc := range []struct {
		name string
		give func(*Listing) error
		n    int // calls that succeed
		took time.Duration
	}{
		{"one key", func(l *Listing) error { return l.Key(key) }, most, most * time.Microsecond},
		{"empty lines", func(l *Listing) error { return l.Key(none) }, most, most * time.Microsecond},
		{"pages", func(l *Listing) error { return l.Page() }, 240_000, time.Minute},
		{"bytes", func(l *Listing) error { return l.Bytes(10_000) }, 187_500, time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				given := 0
				began, l := time.Now(), List{Most: most}.Begin(ctx, func([]byte) error { given++; return nil })
				n, err := 0, error(nil)
				for ; err == nil && n <= tc.n+50; n++ {
					err = tc.give(l)
				}
				if n--; n > tc.n+20 || n < tc.n-20 || time.Since(began) < tc.took-stepTime || time.Since(began) > tc.took {
					t.Errorf("%d in %v, %v, want %d in %v", n, time.Since(began), err, tc.n, tc.took)
				}
				if ended := errors.Is(err, context.DeadlineExceeded); ended == (tc.took < time.Minute) || !ended && !errors.Is(err, ErrPermanent) {
					t.Errorf("it ended by %v", err)
				}
				if is := tc.name == "one key"; is && given != most || !is && given != 0 {
					t.Errorf("%d keys were given", given)
				}
			})
		})
	}
	bubble.Test(t, func(t *testing.T) {
		began, slow := time.Now(), List{}.Begin(t.Context(), func([]byte) error { return nil })
		for range 100 {
			time.Sleep(stepTime)
			for range stepTime / keyTime {
				testenv.Must(t, slow.Key(key))
			}
		}
		if took := time.Since(began); took != 100*stepTime {
			t.Errorf("a list that takes %v by itself took %v", 100*stepTime, took)
		}
	})
}
