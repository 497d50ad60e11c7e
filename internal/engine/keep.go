package engine

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// This file decides which kept memory is accepted: sidecar/keep.go takes it from systemd, and l2/segment/keep.go
// reads and writes it.

// Keep says what an earlier process has left, and to what the entries are compared.
type Keep struct {
	File *os.File // the memory of an earlier process; nil: there is none
	Why  string   // why there is none
	Boot string   // identifies the boot clock: kv.BootClockID
	// Fed are the namespaces whose entries are not taken over: a feed may have missed changes of theirs
	// while no process ran.
	Fed []string
}

// Decline makes memory of an earlier process of no use: its entries may change from now on.
func Decline(f *os.File) {
	segment.Forget(f)
	_ = f.Close()
}

// mostDown is how long no process may have run: a DELETE that an app has given up was not executed, and
// the longer a host is down the more apps give up.
const mostDown = time.Minute

// kept is what a process leaves to the next one beside the entries.
type kept struct {
	note   keptNote // of the process before
	down   time.Duration
	served atomic.Bool // this process has served
}

type keptNote struct {
	Boot    string
	Now     kv.Moment   // at the end of the last process that has served
	Most    int         // max_value
	Version kv.Version  // no entry has a later one
	Seed    uint64      // of the namespace "", which tells the cluster's seed without naming it
	Node    string      // its name and its cluster; "": it was alone
	Kept    []wire.Kept // by a node of a cluster
	Names   map[string]kv.NamespaceID
}

// config returns what the store needs, or nil.
func (k *kept) config(e *Engine) *segment.Keep {
	if e.Config.Keep == nil {
		return nil
	}
	return &segment.Keep{File: e.Config.Keep.File, Accept: func(note []byte) error { return k.accept(e, note) }}
}

// accept returns why the entries of an earlier process are of no use, or nil.
func (k *kept) accept(e *Engine, note []byte) error {
	k.note = keptNote{}
	n := &k.note
	if err := wire.UnmarshalBody(note, n); err != nil {
		return fmt.Errorf("its note cannot be read: %w", err)
	}
	now, names := e.Clock.Read(), maps.Clone(n.Names)
	if names == nil {
		names = map[string]kv.NamespaceID{}
	}
	k.down = now.Boot - n.Now.Boot
	moved := time.Duration(now.Wall-n.Now.Wall)*time.Millisecond - k.down
	most := e.Config.Namespaces.Max
	for name, id := range n.Names {
		if int(id) >= most {
			return fmt.Errorf("namespace %s has slot %d, and max_namespaces is %d", name, id, most)
		}
	}
	for name := range e.Config.Namespaces.Configured {
		names[name] = 0
	}
	switch {
	case n.Node != e.node():
		return fmt.Errorf("it is of %s, and this is %s", cmp.Or(n.Node, alone), cmp.Or(e.node(), alone))
	case n.Node != "" && len(n.Kept) == 0:
		return fmt.Errorf("no other host took over what the process before owned, or it was drained")
	case n.Boot != e.Config.Keep.Boot || n.Boot == "":
		return fmt.Errorf("the machine has been started anew")
	case k.down < 0 || k.down > mostDown:
		return fmt.Errorf("no process ran for %v, and at most %v are allowed", k.down.Round(time.Millisecond), mostDown)
	case moved.Abs() > e.Config.Cluster.MaxSkew:
		return fmt.Errorf("the clock was set by %v, and max_clock_skew is %v",
			moved.Round(time.Millisecond), e.Config.Cluster.MaxSkew)
	case n.Seed != kv.NamespaceSeed(e.Config.Seed, ""):
		return fmt.Errorf("cluster_key_file has another seed")
	case n.Most > e.Config.MaxValue:
		return fmt.Errorf("max_value was %d B, and is %d B", n.Most, e.Config.MaxValue)
	case len(names) > most:
		return fmt.Errorf("there are %d namespaces with those that are configured, and max_namespaces is %d",
			len(names), most)
	case !e.HLC.Observe(n.Version):
		return fmt.Errorf("its versions are too far ahead")
	}
	return nil
}

const alone = "a host that is alone"

// node names this host and its cluster; "": it is alone.
func (e *Engine) node() string {
	if e.Config.Cluster.Bind == "" {
		return ""
	}
	return "node " + e.Config.Node + " of cluster " + cmp.Or(e.Config.Cluster.Cluster, cluster.DefaultCluster)
}

// names returns the slots of the names whose entries were taken over.
func (k *kept) names(taken segment.Taken) map[string]kv.NamespaceID {
	if taken.Entries == 0 {
		return nil
	}
	return k.note.Names
}

// save leaves the entries to the next process. Nothing uses the store any more.
func (k *kept) save(e *Engine) {
	if e.Config.Keep == nil || e.Node == nil {
		return // what New was to take over is still there
	}
	now := e.Clock.Read()
	at := now
	if !k.served.Load() && e.Store.Taken().Entries > 0 {
		at = k.note.Now
	}
	n := keptNote{
		Boot: e.Config.Keep.Boot, Now: at, Most: e.Config.MaxValue, Version: e.HLC.Next(now.Wall),
		Seed:  kv.NamespaceSeed(e.Config.Seed, ""),
		Names: map[string]kv.NamespaceID{}, Node: e.node(), Kept: e.Handoff.KeptForNext(),
	}
	for name, ns := range e.Namespaces.All() {
		n.Names[name] = ns.ID
	}
	if err := e.Store.Save(wire.MarshalBody(&n)); err != nil {
		e.Config.Log.Warn("the entries are not kept for the next start", "error", err)
	}
}

// own begins to use what was taken over, once all parts of the engine are made.
func (k *kept) own(e *Engine) {
	if e.Store.Taken().Entries == 0 {
		return
	}
	if e.Node.SingleNode() {
		for _, name := range e.Config.Keep.Fed {
			if ns := e.Namespaces.Lookup([]byte(name)); ns != nil {
				e.Store.Clear(ns.ID, e.Clock.Read())
			}
		}
	} else { // what the feeds told of was deleted at the owners meanwhile
		e.Handoff.Recover(e.kept.note.Kept)
	}
	e.Store.Own()
}

// Serving is called when apps are served.
func (e *Engine) Serving() { e.kept.served.Store(true) }

// Kept says what this process has taken over from the one before, or nil without keep_memory.
func (e *Engine) Kept() *cachesidecar.KeptStats {
	if e.Config.Keep == nil {
		return nil
	}
	taken := e.Store.Taken()
	s := e.Handoff.KeptStats()
	s.Entries = taken.Entries
	switch {
	case taken.Why != nil:
		s.Cold = taken.Why.Error()
	case e.Config.Keep.File == nil:
		s.Cold = e.Config.Keep.Why
	default:
		s.DownMS = e.kept.down.Milliseconds()
	}
	return &s
}
