package changes

import "testing"

// TestHasRoom checks that no more is taken before a round than readers may fail to see, in bytes and transactions.
func TestHasRoom(t *testing.T) {
	for _, tc := range []struct {
		waiting, pending int
		want             bool
	}{{maxWaiting, maxPending - 1, true}, {maxWaiting + 1, 0, false}, {0, maxPending, false}} {
		s := &following{waiting: tc.waiting, order: make([]*pending, tc.pending)}
		if got := s.hasRoom(); got != tc.want {
			t.Errorf("%d bytes, %d transactions: %v", tc.waiting, tc.pending, got)
		}
	}
}
