package postgres

import (
	"strings"
	"syscall"
	"testing"

	"github.com/cachesidecar/cachesidecar/loader"
)

// TestFeedServerOther checks that a host begins anew at another server than the one that was followed, and after
// the server went back in time; and that it compares what hosts of earlier versions tell.
func TestFeedServerOther(t *testing.T) {
	s := newFeedServer(t)
	was := parseMark(s.certified())
	for _, tc := range []struct {
		name, anew string
		state      func(m mark) string
	}{
		{"the same", "", func(m mark) string { return m.String() }},
		{"with more of a later version", "", func(m mark) string { return m.String() + "later" }},
		{"of an earlier version", "", func(m mark) string { return m.catalog }},
		{"another catalog", catalogChanged, func(m mark) string { return strings.Repeat("x", len(m.catalog)) }},
		{"another server", "the server is another one", func(m mark) string { m.server.system++; return m.String() }},
		{"another timeline", "promoted", func(m mark) string { m.server.timeline++; return m.String() }},
		{"a log that was longer", "went back in time", func(m mark) string { m.at += 1 << 30; return m.String() }},
		{"a slot that has forgotten more", othersMoved, func(m mark) string { m.at = 1; return m.String() }},
	} {
		if n := len(tc.state(was)); n > 64 {
			t.Errorf("%s: a state of %d bytes", tc.name, n)
		}
		stream, err := s.feed().Stream(t.Context(), "", tc.state(was))
		if err != nil {
			t.Fatal(tc.name, err)
		}
		if (stream.Anew() == "") != (tc.anew == "") || !strings.Contains(stream.Anew(), tc.anew) {
			t.Errorf("%s: it begins anew since %q, want %q", tc.name, stream.Anew(), tc.anew)
		}
		stream.Close()
		if s.noticed(); tc.anew != "" {
			was = parseMark(s.certified())
		}
	}
}

// TestFeedPromotedWithSlot checks that a host begins anew at a standby that was promoted and had the slot, as a
// failover manager sees to.
func TestFeedPromotedWithSlot(t *testing.T) {
	s := newFeedServer(t)
	state := s.certified()
	if err := s.process.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = s.process.Wait()
	s.Demote(t)
	s.process = s.Start(t, "wal_level=logical")
	s.Exec(t, "SELECT pg_promote()")
	stream, err := s.feed().Stream(t.Context(), "", state)
	if err != nil {
		t.Fatal(err)
	}
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
