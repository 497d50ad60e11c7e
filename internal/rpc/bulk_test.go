package rpc

import (
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/cachesidecar/cachesidecar/internal/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestBulkTurns checks that owners take turns, and in the turns of an owner its processes.
func TestBulkTurns(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		b := NewBudget(0)
		running := 0
		for b.bulk.try() {
			running++
		}
		var began []string
		for _, of := range [][2]string{{"a", "1"}, {"a", "1"}, {"a", "2"}, {"a", "1"}, {"b", "3"}, {"b", "3"}} {
			go func() { // ends with its turn
				b.bulk.enter(b.Open(of[0], of[1], nil))
				began = append(began, of[0]+of[1])
			}()
			synctest.Wait()
		}
		if b.bulk.try() {
			t.Error("one begins before those that wait")
		}
		for range 6 {
			b.bulk.leave()
			synctest.Wait()
		}
		if want := []string{"a1", "b3", "a2", "b3", "a1", "a1"}; !slices.Equal(began, want) {
			t.Errorf("%v, want %v", began, want)
		}
		for range running {
			b.bulk.leave()
		}
		if b.bulk.runs != 0 || b.bulk.waits.len() != 0 {
			t.Errorf("%d run, %d wait", b.bulk.runs, b.bulk.waits.len())
		}
	})
}

// TestLongAnswersTakeTurns checks that a connection waits for its turn before it makes a long answer,
// that short answers pass, and that an answer that its client does not take keeps no turn.
func TestLongAnswersTakeTurns(t *testing.T) {
	s, dial, _ := serve(t, newEcho(), Limits{})
	turns := &s.Limits().Budget.bulk
	running := 0
	for turns.try() {
		running++
	}
	waits := func(n int) func() bool {
		return func() bool {
			turns.mu.Lock()
			defer turns.mu.Unlock()
			return turns.waits.len() == n
		}
	}
	slow, fast := dial(), dial()
	for _, nc := range []io.Writer{slow, fast} {
		if _, err := nc.Write(getFrame(1, fmt.Sprint("big ", 8*BulkFrom))); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Eventually(t, "both to wait", waits(2))
	other := dial()
	if _, err := other.Write(getFrame(1, "short")); err != nil {
		t.Fatal(err)
	}
	readReply(t, other)
	turns.leave()                                // one at a time from now on, whatever the processors
	for _, nc := range []io.Reader{fast, slow} { // the slow one has the first turn, and takes nothing
		if p := readReply(t, nc); len(p.Value) != 8*BulkFrom {
			t.Errorf("%s, %d bytes", p.Status, len(p.Value))
		}
	}
	testenv.Eventually(t, "the turns to end", waits(0))
	for range running - 1 {
		turns.leave()
	}
	s.each((*Conn).Kill)
	allGiven(t, s)
}
