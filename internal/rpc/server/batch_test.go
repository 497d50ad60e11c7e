package server

import (
	"fmt"
	"io"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestLongAnswersTakeTurns checks that a connection waits for its turn before it makes a long answer,
// that short answers pass, and that an answer that its client does not take keeps no turn.
func TestLongAnswersTakeTurns(t *testing.T) {
	s, dial, _ := serve(t, newEcho(), Limits{})
	turns := s.Limits().Budget.Open("uid 1", "")
	running := 0
	for turns.TryTurn(quota.CopyTurn) {
		running++
	}
	waits := func(n int) func() bool {
		return func() bool { return s.Limits().Budget.WaitingTurns(quota.CopyTurn) == n }
	}
	slow, fast := dial(), dial()
	for _, nc := range []io.Writer{slow, fast} {
		if _, err := nc.Write(getFrame(1, fmt.Sprint("big ", 8*quota.LongCopy))); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Eventually(t, "both to wait", waits(2))
	other := dial()
	if _, err := other.Write(getFrame(1, "short")); err != nil {
		t.Fatal(err)
	}
	readReply(t, other)
	turns.EndTurn(quota.CopyTurn)                // one at a time from now on, whatever the processors
	for _, nc := range []io.Reader{fast, slow} { // the slow one has the first turn, and takes nothing
		if p := readReply(t, nc); len(p.Value) != 8*quota.LongCopy {
			t.Errorf("%s, %d bytes", p.Status, len(p.Value))
		}
	}
	testenv.Eventually(t, "the turns to end", waits(0))
	for range running - 1 {
		turns.EndTurn(quota.CopyTurn)
	}
	turns.Close()
	s.each((*Conn).Kill)
	allGiven(t, s)
}
