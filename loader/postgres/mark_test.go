package postgres

import (
	"strings"
	"syscall"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// TestFeedServerOther checks that a stream does not go on at another server than the one that was followed, or
// after the server went back in time; nor after a state that cannot be read.
func TestFeedServerOther(t *testing.T) {
	was := mark{strings.Repeat("d", 32), serverID{1 << 63, 7}, 1 << 40}
	s := &stream{catalog: was.catalog, server: server{was.server, was.at}}
	if n := len(was.String()); n > 64 {
		t.Errorf("a state of %d bytes", n)
	}
	for _, tc := range []struct {
		name, want string
		state      func(m mark) string
	}{
		{"the same", "", func(m mark) string { return m.String() }},
		{"nothing", "", func(m mark) string { return "" }},
		{"with more, of a later version", "", func(m mark) string { return m.String() + "later" }},
		{"the catalog alone", "the server is another one", func(m mark) string { return m.catalog }},
		{"cut short", "the server is another one", func(m mark) string { return m.String()[:40] }},
		{"another catalog alone", catalogChanged, func(m mark) string { return strings.Repeat("x", 32) }},
		{"no state", catalogChanged, func(m mark) string { return "x" }},
		{"another catalog", catalogChanged, func(m mark) string { m.catalog = strings.Repeat("x", 32); return m.String() }},
		{"another server", "the server is another one", func(m mark) string { m.server.system++; return m.String() }},
		{"a later timeline", "promoted", func(m mark) string { m.server.timeline++; return m.String() }},
		{"an earlier timeline", "promoted", func(m mark) string { m.server.timeline--; return m.String() }},
		{"a log that was longer", "went back in time", func(m mark) string { m.at++; return m.String() }},
		{"a log that was shorter", "", func(m mark) string { m.at--; return m.String() }},
	} {
		if got := s.differs(parseMark(tc.state(was))); (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

// TestFeedPromotedWithSlot checks that a host begins anew at a standby that was promoted and had the slot, as a
// failover manager sees to.
func TestFeedPromotedWithSlot(t *testing.T) {
	s := newFeedServer(t)
	state := s.certified()
	testenv.Must(t, s.Process.Process.Signal(syscall.SIGINT))
	_ = s.Process.Wait()
	s.Demote(t)
	s.Start(t)
	s.Exec(t, "SELECT pg_promote()")
	stream, err := s.feed().Stream(t.Context(), "", state)
	testenv.Must(t, err)
	defer stream.Close()
	if !strings.Contains(stream.Anew(), "promoted") {
		t.Errorf("it begins anew since %q", stream.Anew())
	}
}

// FuzzMark checks that a state of any host does no harm, and that what is read is written in the same way.
func FuzzMark(f *testing.F) {
	f.Add("")
	f.Add(strings.Repeat("d", 32))
	f.Add(mark{strings.Repeat("d", 32), serverID{7, 1}, loader.Position(9)}.String())
	f.Add(strings.Repeat("d", 45))
	f.Fuzz(func(t *testing.T, state string) {
		m := parseMark(state)
		if again := parseMark(m.String()); m.at != 0 && again != m {
			t.Errorf("%q: %+v, then %+v", state, m, again)
		}
		if !strings.HasPrefix(state, m.catalog) {
			t.Errorf("%q has the catalog %q", state, m.catalog)
		}
	})
}
