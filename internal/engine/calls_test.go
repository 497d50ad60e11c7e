package engine

import (
	"io"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// TestGiveUp checks that a call is given up if only its maker waits for it, and that no
// read joins the call afterwards.
func TestGiveUp(t *testing.T) {
	s := Remote{base: &base{}}
	alone := &Call{key: kv.Key{Hash: 1}}
	joined := &Call{key: kv.Key{Hash: 2}, told: []*Wait{{}}}
	awaited := &Call{key: kv.Key{Hash: 3}, done: make(chan struct{})}
	for _, cl := range []*Call{alone, joined, awaited} {
		s.Calls.Add(cl.key, func() *Call { return cl })
	}
	joinable := func(cl *Call) bool {
		_, ok := s.Calls.Find(cl.key, func(o *Call) bool { return o == cl })
		return ok
	}
	if !s.giveUp(alone) || joinable(alone) {
		t.Error("one whose maker alone waits goes on, or can be joined")
	}
	if s.giveUp(joined) || s.giveUp(awaited) || !joinable(joined) || !joinable(awaited) {
		t.Error("one that others have joined is given up")
	}
}

// TestWants checks that a long answer is still wanted if other reads have joined its call,
// although its own connection does not take it.
func TestWants(t *testing.T) {
	wants := func(takes error, told ...*Wait) error {
		cl := &Call{key: kv.Key{Hash: 1}, told: told}
		return (&Wait{Conn: conn{takes: takes}, call: cl, e: &Engine{Remote: &Remote{base: &base{}}}}).Wants(1 << 20)
	}
	if err := wants(nil); err != nil {
		t.Errorf("a connection that reads: %v", err)
	}
	if wants(io.EOF) == nil {
		t.Error("an answer is wanted that no connection takes")
	}
	if err := wants(io.EOF, &Wait{}); err != nil {
		t.Errorf("others have joined: %v", err)
	}
}

// conn is a connection that takes long answers, or not.
type conn struct {
	Conn
	takes error
}

func (c conn) Takes(int) error { return c.takes }
