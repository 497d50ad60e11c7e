package peer

import (
	"cmp"
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
	Meet Purpose = "meet" // the greeting only: whether a process is there
)

// Identity is what a node tells about itself, and what other nodes must have in common
// with it.
type Identity struct {
	Cluster  string
	Self     kv.Process
	Settings map[string]string // by name; must be the same on all nodes
	MaxSkew  time.Duration     // between wall clocks
	Clock    kv.Clock
	Versions *kv.HLC
	Floors   func() []wire.Floor // the flushes that this node knows
	Learn    func([]wire.Floor)  // runs before a greeting counts

	limit atomic.Uint64 // the highest version that is accepted; see Ahead
}

// ErrRefused means that one side refuses to talk to the other. The message says why.
var ErrRefused = errors.New("refused")

// hello returns this node's greeting.
func (id *Identity) hello(purpose Purpose) wire.PeerHello {
	now := id.Clock.Read()
	return wire.PeerHello{
		MinVersion: 1, MaxVersion: wire.PeerVersion,
		Cluster: id.Cluster, From: id.Self,
		Purpose: string(purpose), Settings: id.Settings,
		WallMS: now.Wall, Clock: uint64(id.Versions.Next(now.Wall)), Floors: id.Floors(),
	}
}

// merge merges the clock and the flushes of an accepted greeting.
func (id *Identity) merge(h *wire.PeerHello) {
	id.Versions.Observe(kv.Version(h.Clock))
	id.Learn(h.Floors)
}

// read decodes a greeting. If the two sides have no common version, it says so, whatever
// else the greeting consists of.
func (id *Identity) read(body []byte, h *wire.PeerHello) error {
	lowest, highest, err := wire.PeerVersions(body)
	if err == nil && (lowest > wire.PeerVersion || highest < 1) {
		_ = wire.UnmarshalBody(body, h) // for the name, if this version can read it
		return fmt.Errorf("%s speaks versions %d to %d between sidecars, this one 1 to %d: upgrade the older one",
			cmp.Or(quotedIfNeeded(string(h.From.Node)), "it"), lowest, highest, wire.PeerVersion)
	}
	return wire.UnmarshalBody(body, h)
}

// check returns why a greeting cannot be accepted, or nil. The greeting's clock is
// compared with the interval in which it must have been written: since to now, in
// milliseconds of wall time.
func (id *Identity) check(h *wire.PeerHello, since, now int64) error {
	from := quotedIfNeeded(string(h.From.Node))
	switch {
	case h.From.Node == "" || len(h.From.Node) > wire.MaxNameLen:
		return fmt.Errorf("a node name of %d bytes: 1 to %d are taken", len(h.From.Node), wire.MaxNameLen)
	case h.Cluster != id.Cluster:
		return fmt.Errorf("%s belongs to cluster %s, this one to %q", from, shown(h.Cluster), id.Cluster)
	case h.From.Node == id.Self.Node && h.From.Epoch != id.Self.Epoch:
		return fmt.Errorf("another process calls itself %s too: names must be unique, set node", from)
	case len(h.Settings) > maxSettings:
		return fmt.Errorf("%s has %d cluster-wide settings: there are %d at the most",
			from, len(h.Settings), maxSettings)
	}
	if diff := id.differences(h.Settings); diff != "" {
		return fmt.Errorf("%s has other cluster-wide settings: %s; they must be the same on all nodes", from, diff)
	}
	if err := id.Skew(from, h.WallMS, since, now); err != nil {
		return err
	}
	return id.Ahead(kv.NodeID(from), h.NewestVersion())
}

// Skew returns a *SkewError if a wall clock, in milliseconds, differs by more than
// MaxSkew from this node's. The other clock was read between since and now of this
// node's wall clock.
func (id *Identity) Skew(node string, wall, since, now int64) error {
	most := id.MaxSkew.Milliseconds()
	if wall < since-most || wall > now+most {
		behind, ahead := time.Duration(since-wall)*time.Millisecond, time.Duration(wall-now)*time.Millisecond
		return &SkewError{node, behind, ahead, id.MaxSkew}
	}
	return nil
}

// SkewError means that a node's wall clock is too far off. The positive one of Behind
// and Ahead says by how much.
type SkewError struct {
	Node          string
	Behind, Ahead time.Duration
	Most          time.Duration
}

func (err *SkewError) Error() string {
	return fmt.Sprintf("the clock of %s is off by %v, max_clock_skew is %v: synchronize the clocks",
		err.Node, max(err.Behind, err.Ahead), err.Most)
}

// maxSettings limits how many settings of a greeting are compared.
const maxSettings = 4096

// differences lists up to 5 settings that are not the same, with both values.
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
			list = append(list, fmt.Sprintf("%s is %s there and %q here", quotedIfNeeded(n), shown(a), b))
		}
	}
	sort.Strings(list)
	return strings.Join(list[:min(len(list), 5)], ", ")
}
