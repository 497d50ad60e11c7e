package onehost

import (
	"context"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Do executes an app's request as its session does: in place, or else the way that may wait.
// A request without a namespace is in the default one.
func (h *Host) Do(q wire.Request) wire.Reply {
	q.App = true
	r := h.do(&q, h.ServeNow)
	h.Count(&q, &r)
	return r
}

// DoPeer executes a request that another sidecar has passed on.
func (h *Host) DoPeer(q wire.Request) wire.Reply { return h.do(&q, h.ServePeer) }

func (h *Host) do(
	q *wire.Request,
	waiting func(context.Context, *wire.Request, *namespaces.Pins, time.Duration) wire.Reply,
) wire.Reply {
	if q.Namespace == nil {
		q.Namespace = []byte(namespaces.Default)
	}
	b := namespaces.Pins{Table: h.Namespaces}
	defer b.Release()
	now := h.Clock.Read()
	h.Node.CheckPause(now.Boot)
	h.Deadlines.Limit(q, now.Boot+h.Deadlines.Timeout(q))
	r := engine.Moved()
	if q.Op != wire.OpMGet { // a session reads each of its keys in place
		r = h.Execute(q, &b, now, 0)
	}
	if r.Status == wire.Moved {
		r = waiting(h.ctx, q, &b, h.Deadlines.Of(q, now))
	}
	return r
}

// The requests that most tests make, in the default namespace, with its TTL.

// Get reads a key.
func (h *Host) Get(key string, o wire.Options) wire.Reply {
	return h.Do(wire.Request{Op: wire.OpGet, Key: []byte(key), Options: o})
}

// Set stores a value.
func (h *Host) Set(key, value string) wire.Reply {
	return h.Do(wire.Request{Op: wire.OpSet, Key: []byte(key), Value: []byte(value), TTLMS: wire.TTLDefault})
}

// Delete deletes a key, and returns the item of the answer.
func (h *Host) Delete(key string, o wire.Options) wire.Reply {
	return h.Do(wire.Request{Op: wire.OpDelete, Keys: [][]byte{[]byte(key)}, Options: o}).Items[0]
}

// Lease asks for a value, or for the token to load it.
func (h *Host) Lease(key string, o wire.Options) wire.Reply {
	return h.Do(wire.Request{Op: wire.OpLease, Key: []byte(key), Options: o})
}

// Fill stores the value that the holder of a token has loaded.
func (h *Host) Fill(key string, token []byte, value string) wire.Reply {
	return h.Do(wire.Request{
		Op: wire.OpFill, Key: []byte(key), Token: token, Value: []byte(value), TTLMS: wire.TTLDefault,
	})
}

// Abandon gives a token back.
func (h *Host) Abandon(key string, token []byte) wire.Reply {
	return h.Do(wire.Request{Op: wire.OpFill, Key: []byte(key), Token: token, Options: wire.Abandon})
}

// Is checks the status and the value of an answer.
func Is(t testing.TB, what string, r wire.Reply, status wire.Status, value string) {
	t.Helper()
	if r.Status != status || string(r.Value) != value {
		t.Errorf("%s: %s %q (%s %v), want %s %q", what, r.Status, r.Value, r.Message, r.Why, status, value)
	}
}

// Absent checks that an answer says that the origin has no such key.
func Absent(t testing.TB, what string, r wire.Reply) {
	t.Helper()
	if r.Status != wire.Miss || r.Why != wire.Absent {
		t.Errorf("%s: %s (%s %v), want MISS, absent", what, r.Status, r.Message, r.Why)
	}
}
