package hosts

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/session"
)

// TestVirtualAnswersAhead checks that a host refuses what a host hands over or answers
// about a key if the version clock of that host is an hour ahead. No entry, copy or
// version of it is kept.
func TestVirtualAnswersAhead(t *testing.T) {
	t.Parallel()
	inQuietWorld(t, 2, func(t *testing.T, w *world) {
		from, to := w.nodes[0].s, w.nodes[1].s
		name, _ := keyOwnedBy(w.nodes[0], "key")
		other, _ := keyOwnedBy(w.nodes[0], "other")
		key := to.engine.Namespaces.Lookup(session.DefaultNamespace).Key(name)
		ctx := context.Background()
		for _, k := range [][]byte{name, other} {
			mustSet(t, from, string(k), []byte("v"))
		}
		if _, err := to.Get(ctx, "default", string(name), cachesidecar.GetOptions{}); err != nil { // makes the connection
			t.Fatal(err)
		}
		wall := from.engine.Clock.Read().Wall
		from.engine.HLC.Observe(kv.FirstVersionAt(wall + time.Hour.Milliseconds()))

		if v, err := to.Get(ctx, "default", string(other), cachesidecar.GetOptions{}); err == nil {
			t.Errorf("a read of its key: %q", v.Value)
		}
		set := kv.NewPartitionSet(kv.Partitions)
		set.Add(key.Hash.Partition())
		ballot := &kv.Ballot{Clock: to.engine.HLC.Next(wall), Process: to.engine.Node.Self()}
		from.engine.Handoff.Ended(set, from.engine.HLC.Next(wall))
		from.engine.Handoff.Offer(to.engine.Node.Self(), ballot, set)
		src := sourceOf(from, to, ballot, set)
		if _, _, err := to.engine.Handoff.PullBatch(ctx, src, 0); !errors.Is(err, peer.ErrRefused) {
			t.Errorf("a batch of entries: %v", err)
		}
		if err := to.engine.Handoff.FetchNow(ctx, src, "default", key); !errors.Is(err, peer.ErrRefused) {
			t.Errorf("one entry: %v", err)
		}
		if _, there := to.engine.Store.Peek(key, to.engine.Clock.Read().Boot); there {
			t.Error("the entry was kept")
		}
		if clock := to.engine.HLC.Next(wall); clock > kv.FirstVersionAt(wall+3000) {
			t.Errorf("its clock was taken: %v", clock)
		}
		w.nodes[0].kill()
		w.nodes[1].kill()
		time.Sleep(15 * time.Second)
	})
}
