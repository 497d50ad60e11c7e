package origin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// ofKeys is an origin without checks. It answers user:1 with loaded, and other keys with other.
type ofKeys struct {
	probe         bool // as redis; else as http
	loaded, other error
	hangs         bool // other keys get no answer
	asked         *atomic.Int64
}

func (ofKeys) Kind() string     { return "own" }
func (ofKeys) Descriptors() int { return 0 }
func (s ofKeys) Open(loader.OriginOptions) (*loader.Origin, error) {
	load := func(ctx context.Context, key []byte) (loader.Value, error) {
		if string(key) == "user:1" {
			return loader.Value{}, s.loaded
		}
		if s.asked.Add(1); s.hangs {
			<-ctx.Done()
			return loader.Value{}, ctx.Err()
		}
		return loader.Value{}, s.other
	}
	return &loader.Origin{Source: loader.SourceFunc(load), Probe: s.probe}, nil
}

// open opens the origin, which counts the other keys that it is asked for.
func (s ofKeys) open(t *testing.T, pattern string) (o *Origin, asked *atomic.Int64) {
	t.Helper()
	s.asked = &atomic.Int64{}
	o, err := Open("users", Settings{Origin: s, KeyPattern: pattern}, nil, Host{MaxValue: 1 << 20, Log: slog.New(slog.DiscardHandler)})
	testenv.Must(t, err)
	return o, s.asked
}

// agreesSoon reports whether the checks of an origin have ended well within a minute.
func (o *Origin) agreesSoon() bool {
	time.Sleep(time.Minute)
	select {
	case <-o.agreed:
		return o.checks.stats().InARow == 0
	default:
		return false
	}
}

// TestProbe checks for which keys an origin without checks is asked, and which answers are agreement.
func TestProbe(t *testing.T) {
	ofKey, ofHost := fmt.Errorf("%w: another type", loader.ErrPermanent), fmt.Errorf("%w: NOPERM", loader.ErrRefused)
	for name, tc := range map[string]struct {
		pattern string
		other   error
		asked   int64 // by Ask
		refuses bool
		http    bool // as any kind that costs something: also asked by Ask
	}{
		"any key":                   {"", loader.ErrAbsent, 1, false, false},
		"a key that matches":        {"[0-9]+", loader.ErrAbsent, 1, false, false},
		"no key matches":            {"user:.*", ofHost, 0, false, false},
		"too long a value":          {"", loader.ErrTooLarge, 1, false, false},
		"of another type":           {"", ofKey, 1, false, false},
		"refuses the host":          {"", ofHost, 1, true, false},
		"cannot be asked":           {"", errRefused, 1, true, false},
		"http: any key":             {"", loader.ErrAbsent, 1, false, true},
		"http: no key matches":      {"user:.*", ofHost, 0, false, true},
		"http: refuses the request": {"", ofKey, 1, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				o, asked := ofKeys{probe: !tc.http, other: tc.other}.open(t, tc.pattern)
				defer o.Close()
				if err := o.AskOnce(t.Context()); (err != nil) != tc.refuses || asked.Load() != tc.asked {
					t.Errorf("asked %d times, want %d: %v", asked.Load(), tc.asked, err)
				}
				if tc.http {
					return
				}
				go o.Run(t.Context()) // ends with Close
				if o.agreesSoon() == tc.refuses {
					t.Errorf("the checks: %+v", o.checks.stats())
				}
			})
		})
	}
}

// TestLoadAgrees checks that an origin that is asked for a key, and refuses that, is well once a load has
// had an answer, also if a check is under way; and that it is not asked any more.
func TestLoadAgrees(t *testing.T) {
	for name, tc := range map[string]struct {
		loaded error
		hangs  bool
		agrees bool
	}{
		"a value":             {nil, false, true},
		"absent":              {loader.ErrAbsent, false, true},
		"while a check hangs": {nil, true, true},
		"refused":             {loader.ErrRefused, false, false},
		"fails":               {errRefused, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				o, asked := ofKeys{probe: true, loaded: tc.loaded, other: loader.ErrRefused, hangs: tc.hangs}.open(t, "")
				defer o.Close()
				go o.Run(t.Context()) // ends with Close
				if o.agreesSoon() {
					t.Fatal("without a load")
				}
				for n := asked.Load(); tc.hangs && asked.Load() == n; { // until a check has just begun
					time.Sleep(100 * time.Millisecond)
				}
				for range 2 {
					if _, err := o.Load(t.Context(), []byte("user:1")); !errors.Is(err, tc.loaded) {
						t.Fatal(err)
					}
				}
				if got := o.agreesSoon(); got != tc.agrees {
					t.Errorf("after loads: %v, %+v", got, o.checks.stats())
				}
				time.Sleep(time.Minute)
				n := asked.Load()
				time.Sleep(time.Hour)
				if f := o.checks.stats(); (asked.Load() == n) != tc.agrees || (f.InARow == 0) != tc.agrees {
					t.Errorf("in another hour it was asked %d times: %+v", asked.Load()-n, f)
				}
			})
		})
	}
}
