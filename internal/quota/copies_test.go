package quota

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
)

// TestCopiesTakeTurns checks that owners take turns, and in the turns of an owner its processes.
func TestCopiesTakeTurns(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		b := NewBudget(0)
		one := b.Open("a", "1", nil)
		running := 0
		for one.TryCopy() {
			running++
		}
		var began []string
		for _, of := range [][2]string{{"a", "1"}, {"a", "1"}, {"a", "2"}, {"a", "1"}, {"b", "3"}, {"b", "3"}} {
			go func() { // ends with its turn
				b.Open(of[0], of[1], nil).BeginCopy()
				began = append(began, of[0]+of[1])
			}()
			synctest.Wait()
		}
		if one.TryCopy() {
			t.Error("one begins before those that wait")
		}
		for range 6 {
			one.EndCopy()
			synctest.Wait()
		}
		if want := []string{"a1", "b3", "a2", "b3", "a1", "a1"}; !slices.Equal(began, want) {
			t.Errorf("%v, want %v", began, want)
		}
		for range running {
			one.EndCopy()
		}
		if b.copies.runs != 0 || b.copies.waits.Len() != 0 {
			t.Errorf("%d run, %d wait", b.copies.runs, b.copies.waits.Len())
		}
	})
}
