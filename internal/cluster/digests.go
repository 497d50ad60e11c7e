package cluster

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Digests are those of the settings that change an answer: by what they belong to, and by their name.
// A host's own settings belong to "", and all namespaces without settings of their own are OtherNamespaces.
type Digests map[string]map[string]uint64

// Prefixes of what settings belong to.
const (
	NamespacePrefix = "namespaces."
	FeedPrefix      = "changes."
	OtherNamespaces = NamespacePrefix + "*"
)

// Bounds of what another host may tell.
const (
	maxNames  = 256                               // names of settings that another host may tell
	maxThings = kv.MaxNamespaces + 2*maxFeeds + 2 // what these may belong to
	maxThing  = 256                               // bytes of its name
)

// differences compares what both hosts have.
func differences(a, b Digests) (list []cachesidecar.SettingStats) {
	things := maps.Clone(a)
	maps.Copy(things, b)
	for _, of := range slices.Sorted(maps.Keys(things)) {
		x, y := a.of(of), b.of(of)
		for _, name := range slices.Sorted(maps.Keys(x)) {
			if other, both := y[name]; !both || other == x[name] {
				continue
			}
			s := cachesidecar.SettingStats{Setting: name, Differs: true}
			if space, is := strings.CutPrefix(of, NamespacePrefix); is {
				s.Namespace = space
			} else if of != "" {
				s.Setting = of + "." + name
			}
			list = append(list, s)
		}
	}
	return list
}

// of returns the settings of a thing. A namespace without settings of its own has those of all such.
func (ds Digests) of(thing string) map[string]uint64 {
	if own, has := ds[thing]; has || !strings.HasPrefix(thing, NamespacePrefix) {
		return own
	}
	return ds[OtherNamespaces]
}

// pack returns digests as hosts tell them, in one order.
func pack(d Digests) *wire.Settings {
	all := map[string]struct{}{}
	for _, of := range d {
		for name := range of {
			all[name] = struct{}{}
		}
	}
	w := &wire.Settings{Names: slices.Sorted(maps.Keys(all))}
	for _, thing := range slices.Sorted(maps.Keys(d)) {
		of := wire.SettingsOf{Of: thing}
		for _, name := range w.Names {
			of.Digests = binary.BigEndian.AppendUint64(of.Digests, d[thing][name])
		}
		w.Of = append(w.Of, of)
	}
	return w
}

// unpack returns the digests that another host has told. It returns false if no host tells so.
func unpack(w *wire.Settings) (Digests, bool) {
	if len(w.Names) > maxNames || len(w.Of) > maxThings {
		return nil, false
	}
	d := Digests{}
	for _, of := range w.Of {
		space, is := strings.CutPrefix(of.Of, NamespacePrefix)
		if len(of.Digests) != 8*len(w.Names) || len(of.Of) > maxThing ||
			is && of.Of != OtherNamespaces && !kv.ValidNamespace(space) {
			return nil, false
		}
		d[of.Of] = map[string]uint64{}
		for i, name := range w.Names {
			if digest := binary.BigEndian.Uint64(of.Digests[8*i:]); digest != 0 {
				d[of.Of][name] = digest
			}
		}
	}
	return d, true
}
