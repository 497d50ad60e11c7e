package hosts

import (
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestJoin checks that no read joins a call that was sent before a change which this host
// knows of, however far the owner's clock is from this host's.
func TestJoin(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	a, b := twoHosts(t, Config{})
	key := a.engine.Namespaces.All()[DefaultNamespace].Key([]byte(b.keyOf(0)))
	owner := a.engine.Node.View().AssignedOwner(key.Hash.Partition())
	for what, change := range map[string]func(){
		"nothing":           func() {},
		"own write":         func() { a.engine.Changes.Outdated(key, 1) },
		"event":             func() { a.engine.Changes.Note(key.Hash, 1) },
		"floor":             func() { a.engine.Changes.NoteFloor(partitionSet(key.Hash.Partition()), 1) },
		"flush":             func() { a.engine.Changes.NoteFlush(DefaultNamespace, a.engine.HLC.Next(0)) },
		"flush of all":      func() { a.engine.Changes.NoteFlush("", a.engine.HLC.Next(0)) },
		"another key":       func() { a.engine.Changes.Note(key.Hash+1, 1) },
		"another partition": func() { a.engine.Changes.NoteFloor(partitionSet(key.Hash.Partition()+1), 1) },
	} {
		testenv.Eventually(t, "the owner's lease", func() bool {
			return owner.Leased(a.engine.Clock.Read().Boot, a.engine.Node.Bound())
		})
		now := a.engine.Clock.Read()
		first, lead := a.engine.Remote.Join(owner, key, &wire.Request{Op: wire.OpGet}, now, now.Boot+time.Second, now.Boot+time.Second, nil)
		if !lead {
			t.Fatal("there is a call already")
		}
		change()
		second, lead := a.engine.Remote.Join(owner, key, &wire.Request{Op: wire.OpGet}, now, now.Boot+time.Second, now.Boot+time.Second, nil)
		if joins := what == "nothing" || len(what) > 7 && what[:7] == "another"; lead == joins {
			t.Errorf("%s: a new call %v, want %v", what, lead, !joins)
		}
		a.engine.Remote.End(first)
		if second != first {
			a.engine.Remote.End(second)
		}
		if !a.engine.Calls.None() {
			t.Errorf("%s: a call is left", what)
		}
	}
}

func partitionSet(p uint16) kv.PartitionSet {
	set := kv.NewPartitionSet(kv.Partitions)
	set.Add(p)
	return set
}
