package engine

import (
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/transport"
)

// told is a read that is told of a call's end.
type told struct{}

func (told) Tell(*transport.Answers, *Call) {}

// TestGiveUp checks that a call is given up if only its maker waits for it, and that no
// read joins the call afterwards.
func TestGiveUp(t *testing.T) {
	var s Calls
	alone := &Call{Key: kv.Key{Hash: 1}}
	joined := &Call{Key: kv.Key{Hash: 2}, Told: []Joiner{told{}}}
	awaited := &Call{Key: kv.Key{Hash: 3}, Done: make(chan struct{})}
	for _, cl := range []*Call{alone, joined, awaited} {
		s.table.Add(cl.Key, func() *Call { return cl })
	}
	joinable := func(cl *Call) bool {
		_, ok := s.table.Find(cl.Key, func(o *Call) bool { return o == cl })
		return ok
	}
	if !s.GiveUp(alone) || joinable(alone) {
		t.Error("one whose maker alone waits goes on, or can be joined")
	}
	if s.GiveUp(joined) || s.GiveUp(awaited) || !joinable(joined) || !joinable(awaited) {
		t.Error("one that others have joined is given up")
	}
}
