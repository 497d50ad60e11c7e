package member

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
)

// slow answers after 50 ms and ignores contexts.
type slow struct {
	Node
	calls atomic.Int64
	fails int64 // the first call that fails; zero: none
}

func (s *slow) Get(context.Context, string) ([]byte, error) {
	n := s.calls.Add(1)
	time.Sleep(50 * time.Millisecond)
	if s.fails > 0 && n >= s.fails {
		return nil, errors.New("no value")
	}
	return nil, nil
}

func TestServeCrowds(t *testing.T) {
	for _, c := range []struct {
		name string
		node *slow
		o    CrowdOrder
		want CrowdAnswer
	}{
		{"all at once", &slow{}, CrowdOrder{Key: "k", Callers: 10}, CrowdAnswer{Answered: 10}},
		{"some fail", &slow{fails: 4}, CrowdOrder{Key: "k", Callers: 10}, CrowdAnswer{Answered: 3, Errors: 7}},
		{"one in haste", &slow{}, CrowdOrder{Key: "k", Callers: 1, Haste: 10 * time.Millisecond}, CrowdAnswer{Answered: 1, Left: 50 * time.Millisecond}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				var in, out bytes.Buffer
				if err := json.NewEncoder(&in).Encode(c.o); err != nil {
					t.Fatal(err)
				}
				begun := time.Now()
				if err := ServeCrowds(t.Context(), c.node, &in, &out); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(begun); took > 60*time.Millisecond {
					t.Errorf("took %v: not all asked at once", took)
				}
				var r Ready
				var a CrowdAnswer
				d := json.NewDecoder(&out)
				if err := errors.Join(d.Decode(&r), d.Decode(&a)); err != nil || !r.Ready || a != c.want {
					t.Errorf("got %+v, %+v, %v, want %+v", r, a, err, c.want)
				}
			})
		})
	}
}
