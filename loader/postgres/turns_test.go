package postgres

import (
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
)

// sender is what a server has sent: each read takes a time, and brings some bytes.
type sender struct {
	takes, waits time.Duration // a read waits before it
	n            int
}

func (s sender) Read([]byte) (int, error) {
	time.Sleep(s.waits + s.takes)
	return s.n, nil
}

// TestTurns checks how much is read in a second: a quarter of the time, if there is always more, each millisecond
// what has come of small parts, and without a rest what comes slowly.
func TestTurns(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		for _, tc := range []struct {
			name string
			from sender
			want int // reads
		}{
			{"always more", sender{takes: 10 * time.Microsecond, n: streamBuffer}, 25_000},
			{"less than a turn", sender{takes: 10 * time.Microsecond, n: 100}, 1000},
			{"slow parts", sender{takes: 10 * time.Microsecond, waits: 1990 * time.Microsecond, n: 100}, 500},
			{"long reads", sender{waits: 2 * time.Millisecond, n: streamBuffer}, 500},
		} {
			r := &turnReader{r: tc.from}
			began, n := time.Now(), 0
			for ; time.Since(began) < time.Second; n++ {
				_, _ = r.Read(make([]byte, streamBuffer))
			}
			if n < tc.want*98/100 || n > tc.want*102/100+1 {
				t.Errorf("%s: %d reads in a second, want %d", tc.name, n, tc.want)
			}
		}
	})
}
