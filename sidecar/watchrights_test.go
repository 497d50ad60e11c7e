package sidecar

import (
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// A WATCH of all namespaces does not report a flush of a namespace that its caller may
// not read, even if the request names that namespace, as its connection's own or in
// words.
func TestWatchTellsNoOthersFlushes(t *testing.T) {
	s := start(t, Config{Access: map[string]Grants{"mine": {Read: []string{"99"}}, "theirs": {Read: []string{"5"}}, Others: {Read: []string{}}}})
	c := s.doors.Of(s.engine.Access.Caller(unixsock.Peer{UID: 99, GID: 99}), nil)
	q := &wire.Request{Op: wire.OpWatch, Namespace: b("theirs"), Options: wire.All}
	if err := c.Refusal(q); err != nil {
		t.Fatal(err)
	}
	next := func() (a wire.Watched) {
		r := s.engine.Watches.Watched(q, 0, c.By.MayRead())
		if err := wire.UnmarshalBody(r.Body, &a); err != nil {
			t.Fatal(err)
		}
		q.Epoch, q.Seq = a.Epoch, a.Seq
		return a
	}
	next()
	writer := dial(t, s)
	for _, name := range []string{"theirs", "mine"} {
		if r := writer.call(&wire.Request{Op: wire.OpFlush, Namespace: b(name)}); r.Status != wire.OK {
			t.Fatalf("%s %s", r.Status, r.Message)
		}
	}
	a := next()
	if got := eventsOf(t, &a); len(got) != 1 || got[0].detail != "mine" {
		t.Errorf("it is told of %v", got)
	}
}
