package engine

import (
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/handoff"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
)

// Delegate implements cluster.Delegate: the node calls it about ownerships and about the logs
// of other hosts.
type Delegate struct {
	*deps
	*handoff.Handoff // it moves the entries of ownerships that begin and end
	changes          *Changes
	barriers         *Barriers
}

// Calls returns the handler of another process's requests.
func (t *Delegate) Calls(from kv.Process) server.Handler { return t.Config.Peer(from) }

// Settle waits for the changes that are being made.
func (t *Delegate) Settle() { t.Store.Settle() }

// Apply applies events of another process's log, in their order.
func (t *Delegate) Apply(from kv.Process, after uint64, events []invalidation.Event) {
	for i := range events {
		e := &events[i]
		t.noteEvent(e)
		if e.Kind == invalidation.Changed && t.fromSplit(from, e.Hash.Partition(), after+1+uint64(i)) {
			t.dropStray(e.Hash)
		}
	}
}

// Relayed notes events in any order. Such an event may come after the end of its process, when
// its entry has been handed over: so it outdates copies, and says nothing of a split.
func (t *Delegate) Relayed(events []invalidation.Event) {
	for i := range events {
		t.noteEvent(&events[i])
	}
}

func (t *Delegate) noteEvent(e *invalidation.Event) {
	switch e.Kind {
	case invalidation.Changed:
		if !failpoint.Out(failpoint.NoteEvents) {
			t.changes.Note(e.Hash, e.Version)
		}
		t.L1.Outdate(e.Hash, e.Version)
	case invalidation.FloorRaised:
		t.changes.NoteFloor(e.Detail.Partitions, e.Version)
		t.changes.noteUnknown(e.Detail.Partitions)
	case invalidation.Flushed:
		if !failpoint.Out(failpoint.FloorsInLog) {
			t.changes.NoteFlush(e.Detail.Namespace, e.Version)
		}
	}
}

// Late implements cluster.Delegate. What this host has attested until now ends at the others too.
func (t *Delegate) Late(names []string, late bool, owned kv.PartitionSet) {
	begun := t.Namespaces.SetLate(names, late)
	for _, id := range begun {
		t.SharedMemory.Flushed(id)
	}
	if len(begun) > 0 && !failpoint.Out(failpoint.LateRaises) {
		t.changes.RaiseCopies(owned, t.HLC.Next(t.Clock.Read().Wall))
	}
}

// StillLate implements cluster.Delegate. It outdates all loads, tokens and calls under way, since no event
// names the keys that have changed.
func (t *Delegate) StillLate(names []string) {
	for _, name := range names {
		if ns := t.Namespaces.Lookup([]byte(name)); ns != nil {
			t.changes.DetachSlot(ns.ID)
		}
	}
}

// dropStray drops the entry of a key that another process has written while this host owned
// it: the cluster was split. The entry here is not newer in any order that both sides know.
func (t *Delegate) dropStray(h kv.Hash) {
	t.barriers.keys.Note(h, t.Clock.Read().Boot)
	t.Store.Invalidate(h, t.Clock.Read())
	for k := range t.Namespaces.KeyFilters() {
		k.Add(h)
	}
	t.deps.Counts.Strays.Add(1)
}

// fromSplit reports whether an event comes from a split. That is so if this host owns the
// partition, and the event's place in the other process's log is after that process's
// answer to the ACQUIRE with which this ownership began. Under policy consistent two
// sides never both write. A process that has not answered had stopped before this
// ownership began.
func (t *Delegate) fromSplit(from kv.Process, p uint16, place uint64) bool {
	if t.Node.OwnershipEpoch(p) == 0 || t.Config.Cluster.Policy == cluster.Consistent ||
		failpoint.Out(failpoint.Strange) {
		return false
	}
	begun := t.Starts[p].Load()
	return begun != nil && place > begun.Heads[from]
}

// Reset stands in for events of another process's log that are lost.
func (t *Delegate) Reset(from kv.Process, marks []invalidation.Mark, floors []wire.Floor, floor kv.Version) {
	strays, lost := kv.NewPartitionSet(kv.Partitions), kv.NewPartitionSet(kv.Partitions)
	for _, m := range marks {
		lost.Add(m.Partition)
		if t.fromSplit(from, m.Partition, m.Changed) {
			strays.Add(m.Partition)
		}
	}
	if !failpoint.Out(failpoint.ResetFloors) {
		t.changes.NoteFloor(lost, floor)
	}
	t.barriers.raisePartitions(strays, t.Clock.Read().Boot)
	t.changes.noteUnknown(lost)
	if !failpoint.Out(failpoint.FloorsInReset) {
		t.LearnFlushes(floors)
	}
	if strays.Empty() {
		return
	}
	for p := range strays.All() {
		t.Incoming[p].Store(nil)
		t.Store.NewOwnership(p)
	}
	t.deps.Counts.Strays.Add(int64(strays.Len()))
	t.changes.RaiseFloor(strays, t.HLC.Next(t.Clock.Read().Wall))
}

// NoteFlush notes a flush of the cluster. It returns an error if the name is invalid, or if
// too many flushes are remembered already.
func (t *Delegate) NoteFlush(f wire.Floor) error {
	if f.Namespace != "" && !kv.ValidNamespace(f.Namespace) {
		return namespaces.BadName([]byte(f.Namespace))
	}
	if bad := t.Namespaces.CheckFlush(f.Namespace); bad != nil {
		return bad
	}
	t.changes.NoteFlush(f.Namespace, kv.Version(f.Version))
	return nil
}

// LearnFlushes notes flushes that other hosts have noted: those hosts had room for them.
func (t *Delegate) LearnFlushes(floors []wire.Floor) {
	now := t.Clock.Read().Boot
	for _, f := range floors {
		t.changes.noteFlush(f.Namespace, kv.Version(f.Version), ago(now, f.AgeMS))
	}
}

// Floors returns the flushes that this host knows of.
func (t *Delegate) Floors() (list []wire.Floor) {
	now := t.Clock.Read().Boot
	for name, f := range t.Namespaces.Floors() {
		list = append(list, wire.Floor{Namespace: name, Version: uint64(f.Version), AgeMS: ageMS(now, f.At)})
	}
	return list
}
