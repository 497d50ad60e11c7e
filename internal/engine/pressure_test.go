package engine

import (
	"sync/atomic"
	"testing"
)

// TestPressure checks that the pressure is a number, whatever the system reports about
// its own pressure.
func TestPressure(t *testing.T) {
	var waiting atomic.Int64
	s := &Pressure{waiting: &waiting}
	if p := s.highest(); p < 0 || p > 20 {
		t.Errorf("pressure %v", p)
	}
	s.NoteBatch(3 * fullBatch)
	s.NoteBatch(5 * fullBatch)
	if p := s.highest(); p < 4 {
		t.Errorf("with batches that take four times as long as they may it is %v", p)
	}
	waiting.Add(2 * fullWaiting)
	if p := s.highest(); p < 2 {
		t.Errorf("with twice the requests waiting that may it is %v", p)
	}
}
