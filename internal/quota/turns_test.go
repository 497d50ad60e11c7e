package quota

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
)

// TestTurns checks that tenants take turns, and in the turns of a tenant its processes.
func TestTurns(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		b := NewBudget(0)
		one := b.Open("a", "1")
		running := 0
		for one.TryTurn(CopyTurn) {
			running++
		}
		var began []string
		for _, of := range [][2]string{{"a", "1"}, {"a", "1"}, {"a", "2"}, {"a", "1"}, {"b", "3"}, {"b", "3"}} {
			go func() { // ends with its turn
				b.Open(of[0], of[1]).BeginTurn(CopyTurn)
				began = append(began, of[0]+of[1])
			}()
			synctest.Wait()
		}
		if one.TryTurn(CopyTurn) {
			t.Error("one begins before those that wait")
		}
		for range 6 {
			one.EndTurn(CopyTurn)
			synctest.Wait()
		}
		if want := []string{"a1", "b3", "a2", "b3", "a1", "a1"}; !slices.Equal(began, want) {
			t.Errorf("%v, want %v", began, want)
		}
		for range running {
			one.EndTurn(CopyTurn)
		}
		if b.turns[CopyTurn].runs != 0 || b.turns[CopyTurn].waits.Len() != 0 {
			t.Errorf("%d run, %d wait", b.turns[CopyTurn].runs, b.turns[CopyTurn].waits.Len())
		}
	})
}
