package sidecar

import (
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// TestJoin: nobody joins a call that was sent before a change that this host
// knows of, however its owner's clock stands to this one's when it stamps that.
func TestJoin(t *testing.T) {
	a := startHost(t, "a")
	b := startHost(t, "b", a.node.GossipAddress())
	settled(t, a, b)
	var key kv.Key // of b
	for i := 0; ; i++ {
		if key = a.names.all()[DefaultNamespace].key(fmt.Appendf(nil, "key%d", i)); b.node.Holds(key.Hash.Partition()) != 0 {
			break
		}
	}
	owner := a.node.View().Owner(key.Hash.Partition())
	for what, change := range map[string]func(){
		"nothing":           func() {},
		"own write":         func() { a.outdated(key, 1) },
		"event":             func() { a.note(key.Hash, 1) },
		"floor":             func() { a.floor(partitionSet(key.Hash.Partition()), 1) },
		"flush":             func() { a.flushed(DefaultNamespace, a.hlc.Next(0)) },
		"flush of all":      func() { a.flushed("", a.hlc.Next(0)) },
		"another key":       func() { a.note(key.Hash+1, 1) },
		"another partition": func() { a.floor(partitionSet(key.Hash.Partition()+1), 1) },
	} {
		for !owner.Leased(a.clock.Read().Boot, a.node.Bound()) {
			time.Sleep(time.Millisecond)
		}
		now := a.clock.Read()
		first, lead := a.calls.join(&a.core, owner, key, question{}, now, now.Boot+time.Second, nil)
		if !lead {
			t.Fatal("there is a call already")
		}
		change()
		second, lead := a.calls.join(&a.core, owner, key, question{}, now, now.Boot+time.Second, nil)
		if joins := what == "nothing" || len(what) > 7 && what[:7] == "another"; lead == joins {
			t.Errorf("%s: a new call %v, want %v", what, lead, !joins)
		}
		a.calls.end(first)
		if second != first {
			a.calls.end(second)
		}
		if n := a.calls.joinable.Load(); n != 0 {
			t.Errorf("%s: %d calls are left", what, n)
		}
	}
}

func partitionSet(p uint16) kv.PartitionSet {
	set := kv.NewPartitionSet(kv.Partitions)
	set.Add(p)
	return set
}
