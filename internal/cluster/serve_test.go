package cluster

import (
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
)

// TestAnothersName checks that a process can speak only for itself. A forged GOODBYE once split
// the cluster.
func TestAnothersName(t *testing.T) {
	n, err := New(Config{
		Self: kv.Process{Node: "a", Epoch: 1}, Bind: "127.0.0.1:0", PeerBind: "127.0.0.1:0", Bound: time.Second,
		Clock: kv.NewSystemClock(), Versions: kv.NewHLC(1), Delegate: noDelegate{}, Mirror: noDelegate{}, Events: invalidation.NewLog(1),
	})
	testenv.Must(t, err)
	of := kv.Process{Node: "b", Epoch: 2}
	ballot := kv.Ballot{Clock: 1, Process: of}
	for op, body := range map[wire.Op]any{
		wire.OpGoodbye: &wire.Goodbye{From: of},
		wire.OpAcquire: &wire.Acquire{Ballot: ballot, Partitions: []byte{1, 0}},
		wire.OpAuth:    &wire.Auth{Ownerships: []wire.Promise{{Ballot: ballot, Partitions: []byte{1, 0}}}},
	} {
		b := wire.MarshalBody(body)
		r := n.answer(kv.Process{Node: "stranger", Epoch: 1}, &wire.Request{Op: op, Body: b})
		if r.Status != wire.Unauthorized || !strings.Contains(string(r.Message), "in the name of b: this connection is of stranger") {
			t.Errorf("%s: %s %s", op, r.Status, r.Message)
		}
	}
}
