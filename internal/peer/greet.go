package peer

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Purpose is what a connection is for.
type Purpose string

// The purposes.
const (
	Poll Purpose = "poll"
	Call Purpose = "call"
	Meet Purpose = "meet" // the greeting alone: whether a process is there
)

// Identity is what a node tells of itself, and what others must share with it.
type Identity struct {
	Cluster  string
	Self     kv.Process
	Settings map[string]string // what must be the same on all nodes, by name
	MaxSkew  time.Duration     // of wall clocks
	Clock    kv.Clock
	Versions *kv.HLC
	Floors   func() []wire.Floor // the flushes that this node knows of; nil is none
	Learn    func([]wire.Floor)  // takes others', before a greeting is answered, or counts; nil does not

	limit atomic.Uint64 // up to which versions are let in: see Ahead
}

// ErrRefused: one side will not talk to the other, and says why.
var ErrRefused = errors.New("refused")

// hello is what this node says first.
func (id *Identity) hello(purpose Purpose) wire.PeerHello {
	now := id.Clock.Read()
	h := wire.PeerHello{
		MinVersion: 1, MaxVersion: wire.PeerVersion,
		Cluster: id.Cluster, From: wire.Process{Node: string(id.Self.Node), Epoch: uint64(id.Self.Epoch)},
		Purpose: string(purpose), Settings: id.Settings,
		WallMS: now.Wall, Clock: uint64(id.Versions.Next(now.Wall)),
	}
	if id.Floors != nil {
		h.Floors = id.Floors()
	}
	return h
}

// heed takes what a greeting that is accepted tells.
func (id *Identity) heed(h *wire.PeerHello) {
	id.Versions.Observe(kv.Version(h.Clock))
	if id.Learn != nil {
		id.Learn(h.Floors)
	}
}

// check says why a greeting cannot be accepted, if so. The clock is compared
// with when the greeting must have been written: between since and now.
func (id *Identity) check(h *wire.PeerHello, since, now int64) error {
	from := word(h.From.Node)
	switch {
	case h.From.Node == "" || len(h.From.Node) > wire.MaxNameLen:
		return fmt.Errorf("a node name of %d bytes: 1 to %d are taken", len(h.From.Node), wire.MaxNameLen)
	case h.MinVersion > wire.PeerVersion || h.MaxVersion < 1:
		return fmt.Errorf("%s speaks versions %d to %d between sidecars, this one 1 to %d: upgrade the older one",
			from, h.MinVersion, h.MaxVersion, wire.PeerVersion)
	case h.Cluster != id.Cluster:
		return fmt.Errorf("%s belongs to cluster %s, this one to %q", from, shown(h.Cluster), id.Cluster)
	case h.From.Node == string(id.Self.Node) && h.From.Epoch != uint64(id.Self.Epoch):
		return fmt.Errorf("another process calls itself %s too: names must be unique, set node", from)
	case len(h.Settings) > maxSettings:
		return fmt.Errorf("%s has %d cluster-wide settings: there are %d at the most", from, len(h.Settings), maxSettings)
	}
	if diff := id.differences(h.Settings); diff != "" {
		return fmt.Errorf("%s has other cluster-wide settings: %s; they must be the same on all nodes", from, diff)
	}
	if err := id.Skew(from, h.WallMS, since, now); err != nil {
		return err
	}
	return id.Ahead(kv.NodeID(from), h.Newest())
}

// Skew says whether a wall clock that was read between since and now on ours
// is too far off.
func (id *Identity) Skew(node string, wall, since, now int64) error {
	most := id.MaxSkew.Milliseconds()
	if wall < since-most || wall > now+most {
		return &SkewError{node, time.Duration(since-wall) * time.Millisecond, time.Duration(wall-now) * time.Millisecond, id.MaxSkew}
	}
	return nil
}

// SkewError says that a node's wall clock is too far off. Of Behind and Ahead the
// positive one counts.
type SkewError struct {
	Node          string
	Behind, Ahead time.Duration
	Most          time.Duration
}

func (e *SkewError) Error() string {
	return fmt.Sprintf("the clock of %s is off by %v, max_clock_skew is %v: synchronize the clocks", e.Node, max(e.Behind, e.Ahead), e.Most)
}

// maxSettings bounds how many settings of a greeting are compared.
const maxSettings = 4096

// differences lists the settings that are not the same, with both values.
func (id *Identity) differences(theirs map[string]string) string {
	names := map[string]bool{}
	for n := range id.Settings {
		names[n] = true
	}
	for n := range theirs {
		names[n] = true
	}
	var list []string
	for n := range names {
		if a, b := theirs[n], id.Settings[n]; a != b {
			list = append(list, fmt.Sprintf("%s is %s there and %q here", word(n), shown(a), b))
		}
	}
	sort.Strings(list)
	return strings.Join(list[:min(len(list), 5)], ", ")
}
