package cluster

import (
	"bytes"
	"io"
	"log/slog"
	"reflect"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestDifferences checks that only settings which both hosts know are compared, and a namespace that one of
// them does not configure with what such ones have.
func TestDifferences(t *testing.T) {
	a := Digests{"": {"voters": 1}, OtherNamespaces: {"ttl": 1, "new": 1}, "namespaces.n": {"ttl": 2, "new": 9}, "changes.f": {"max_lag": 1}}
	for _, tc := range []struct {
		name string
		b    Digests
		want []string
	}{
		{"the same", a, nil},
		{"a version without a setting", Digests{"": {"voters": 1}, OtherNamespaces: {"ttl": 1}, "namespaces.n": {"ttl": 2}, "changes.f": {"max_lag": 1}}, nil},
		{"a version without any", Digests{}, nil},
		{"a namespace less", Digests{OtherNamespaces: {"ttl": 1}}, []string{"namespaces.n.ttl"}},
		{"a namespace more", Digests{OtherNamespaces: {"ttl": 1}, "namespaces.n": {"ttl": 2}, "namespaces.m": {"ttl": 3}}, []string{"namespaces.m.ttl"}},
		{"a feed and the host", Digests{"": {"voters": 2}, "changes.f": {"max_lag": 2}}, []string{"voters", "changes.f.max_lag"}},
	} {
		for _, pair := range [][2]Digests{{a, tc.b}, {tc.b, a}} {
			var got []string
			for _, s := range differences(pair[0], pair[1]) {
				got = append(got, s.Name())
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
			}
		}
	}
	if again, ok := unpack(pack(a)); !ok || !reflect.DeepEqual(again, a) {
		t.Errorf("packed and unpacked: %v, %v", again, ok)
	}
}

// TestOlderHost checks that a host which tells no digest differs in nothing, and is not asked.
func TestOlderHost(t *testing.T) {
	cfg := &Config{Clock: kv.NewSystemClock(), Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Digests: Digests{"": {"voters": 1}}}
	a := newAgreement(cfg, nil, nil)
	id := kv.Process{Node: "old", Epoch: 1}
	a.heard(id, 0)
	if list := a.due(); len(list) != 0 || len(a.Differing()) != 0 {
		t.Errorf("asked: %v, %v", list, a.Differing())
	}
	a.heard(id, 7)
	if list := a.due(); len(list) != 1 {
		t.Errorf("a host that differs is not asked: %v", list)
	}
	if a.heard(id, 8); len(a.due()) != 0 {
		t.Error("a host that changes its digest with each poll is asked each time")
	}
	later := a.others[id].asked + time.Hour
	// The answer about the first digest comes late: the second one is asked about.
	if a.answered(id, [2]uint64{a.sum, 7}, pack(Digests{"": {"voters": 2}}), nil); !a.others[id].due(a.sum, later) {
		t.Error("a host that changed its digest while it was asked is not asked again")
	}
	if a.answered(id, [2]uint64{a.sum, 8}, pack(cfg.Digests), nil); a.others[id].due(a.sum, later) {
		t.Error("a host is asked twice about the same digests")
	}
	if a.forget(id); len(a.others) != 0 {
		t.Error("a host is not forgotten")
	}
}

// FuzzSettings checks that nothing that another host tells of its settings is more than is bounded.
func FuzzSettings(f *testing.F) {
	own := Digests{"": {"voters": 1}, OtherNamespaces: {"ttl": 1}, "namespaces.n": {"ttl": 2}}
	good := wire.MarshalBody(pack(own))
	f.Add(good)
	f.Add(bytes.Replace(good, []byte("namespaces.n"), []byte("namespaces.\x1b"), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		var w wire.Settings
		if wire.UnmarshalBody(b, &w) != nil {
			return
		}
		theirs, ok := unpack(&w)
		if !ok {
			return
		}
		known := map[string]bool{"voters": true, "ttl": true}
		for _, s := range differences(own, theirs) {
			if name := s.Setting; !known[name] || s.Namespace != "" && s.Namespace != "*" && !kv.ValidNamespace(s.Namespace) {
				t.Errorf("%+v", s)
			}
		}
	})
}
