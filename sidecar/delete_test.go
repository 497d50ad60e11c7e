package sidecar

import (
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/handoff"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// TestDeleteBeforeSlot checks the acknowledged deletion of a key whose namespace had no
// slot here. The deletion removes an entry that was handed over after the deletion had
// looked the namespace up, and keeps out an entry that comes after the deletion.
func TestDeleteBeforeSlot(t *testing.T) {
	s, err := New(Config{Node: "b", NoSocket: true, L2Size: 8 << 20, L1Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.engine.Store.Close() })
	all := kv.NewPartitionSet(kv.Partitions)
	generations := map[uint16]uint16{}
	for p := range uint16(kv.Partitions) {
		all.Add(p)
		generations[p] = s.engine.Store.Generation(p)
	}
	ballot := &ownership.Ballot{Clock: 1, Process: s.engine.Node.Self()}
	src := &handoff.Source{From: kv.Process{Node: "a", Epoch: 1}, Ballot: cluster.ToBallot(ballot), Partitions: all, Generations: generations}
	for p := range all.All() {
		s.engine.Handoff.Incoming[p].Store(src)
	}
	now := s.engine.Clock.Read()
	asOf := s.engine.HLC.Next(now.Wall)
	comes := func(name string) bool {
		e := wire.Entry{Namespace: name, Key: []byte("k"), Value: []byte("old"), Version: uint64(asOf - 1)}
		return s.engine.Handoff.Restore(src, &e, asOf, now)
	}
	for _, name := range []string{"before", "after"} {
		looked := &namespaces.Table{} // the table as the deletion has found it
		looked.Table.Store(s.engine.Names.Table.Load())
		if name == "before" && !comes(name) {
			t.Fatal("the entry was refused")
		}
		b := namespaces.Pins{Table: looked}
		r := s.engine.Writes.Delete(&wire.Request{Op: wire.OpDelete, Namespace: []byte(name)}, []byte("k"), &b, s.engine.Clock.Read())
		if r.Status != wire.Miss || r.Version == 0 {
			t.Errorf("%s: %s, version %d", name, r.Status, r.Version)
		}
		if name == "after" && comes(name) {
			t.Error("an entry from before the deletion came in after it")
		}
		if _, there := s.engine.Store.Peek(s.engine.Names.Lookup([]byte(name)).Key([]byte("k")), s.engine.Clock.Read().Boot); there {
			t.Errorf("an entry that came %s the deletion was acknowledged is there", name)
		}
	}
}
