package postgres

import (
	"strings"
	"syscall"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// TestFeedServerOther checks that a stream does not go on at another server than the one that was followed, or
// after the server went back in time; nor after a checkpoint that cannot be read.
func TestFeedServerOther(t *testing.T) {
	was := mark{strings.Repeat("d", 32), serverID{1 << 63, 7}, 1 << 40}
	s := &stream{catalog: was.catalog, server: server{was.server, was.at}}
	if n := len(was.checkpoint()); n > 64 {
		t.Errorf("a checkpoint of %d bytes", n)
	}
	for _, tc := range []struct {
		name, want string
		checkpoint func(m mark) loader.Checkpoint
	}{
		{"the same", "", func(m mark) loader.Checkpoint { return m.checkpoint() }},
		{"nothing", "", func(m mark) loader.Checkpoint { return "" }},
		{"with more, of a later version", "", func(m mark) loader.Checkpoint { return m.checkpoint() + "later" }},
		{"the catalog alone", "the server is another one",
			func(m mark) loader.Checkpoint { return loader.Checkpoint(m.catalog) }},
		{"cut short", "the server is another one", func(m mark) loader.Checkpoint { return m.checkpoint()[:40] }},
		{"another catalog alone", catalogChanged,
			func(m mark) loader.Checkpoint { return loader.Checkpoint(strings.Repeat("x", 32)) }},
		{"no checkpoint", catalogChanged, func(m mark) loader.Checkpoint { return "x" }},
		{"another catalog", catalogChanged, func(m mark) loader.Checkpoint { m.catalog = strings.Repeat("x", 32); return m.checkpoint() }},
		{"another server", "the server is another one", func(m mark) loader.Checkpoint { m.server.system++; return m.checkpoint() }},
		{"a later timeline", "promoted", func(m mark) loader.Checkpoint { m.server.timeline++; return m.checkpoint() }},
		{"an earlier timeline", "promoted", func(m mark) loader.Checkpoint { m.server.timeline--; return m.checkpoint() }},
		{"a log that was longer", "went back in time", func(m mark) loader.Checkpoint { m.at++; return m.checkpoint() }},
		{"a log that was shorter", "", func(m mark) loader.Checkpoint { m.at--; return m.checkpoint() }},
	} {
		if got := s.differs(parseMark(tc.checkpoint(was))); (got == "") != (tc.want == "") || !strings.Contains(string(got), tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

// TestFeedPromotedWithSlot checks that a host has a gap at a standby that was promoted and had the slot, as a
// failover manager sees to.
func TestFeedPromotedWithSlot(t *testing.T) {
	s := newFeedServer(t)
	known := s.certified()
	testenv.Must(t, s.Process.Process.Signal(syscall.SIGINT))
	_ = s.Process.Wait()
	s.Demote(t)
	s.Start(t)
	s.Exec(t, "SELECT pg_promote()")
	stream, err := s.feed().Stream(t.Context(), "", known)
	testenv.Must(t, err)
	defer stream.Close()
	if !strings.Contains(string(stream.Gap()), "promoted") {
		t.Errorf("the gap is %q", stream.Gap())
	}
}

// FuzzMark checks that a checkpoint of any host does no harm, and that what is read is written in the same way.
func FuzzMark(f *testing.F) {
	f.Add("")
	f.Add(strings.Repeat("d", 32))
	f.Add(string(mark{strings.Repeat("d", 32), serverID{7, 1}, loader.Position(9)}.checkpoint()))
	f.Add(strings.Repeat("d", 45))
	f.Fuzz(func(t *testing.T, state string) {
		m := parseMark(loader.Checkpoint(state))
		if again := parseMark(m.checkpoint()); m.at != 0 && again != m {
			t.Errorf("%q: %+v, then %+v", state, m, again)
		}
		if !strings.HasPrefix(state, m.catalog) {
			t.Errorf("%q has the catalog %q", state, m.catalog)
		}
	})
}
