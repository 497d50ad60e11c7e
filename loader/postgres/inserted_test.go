package postgres

import "testing"

// TestFeedInserted checks that a commit which readers see lies before what a view says of the log's end,
// also if it is not written yet.
func TestFeedInserted(t *testing.T) {
	s := newFeedServer(t, "synchronous_commit=off", "wal_writer_delay=10s")
	f := s.follow("")
	behind := 0
	for range 20 {
		s.Exec(t, "INSERT INTO users SELECT coalesce(max(id), 0) + 1 FROM users")
		v, err := f.View(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Nudge(t.Context()); err != nil { // it comes without a wait
			t.Fatal(err)
		}
		c := f.next()
		if !v.Sees(c) || c.End > v.Inserted {
			t.Errorf("a reader sees the transaction: %v, it ends at %d, and the log at %d", v.Sees(c), c.End, v.Inserted)
		}
		if c.End > v.End {
			behind++
		}
	}
	if behind == 0 {
		t.Error("what is written was never behind what readers see")
	}
}

// TestFeedState checks that a stream begins anew if its state is not what another host has certified: the
// catalog has changed while no host followed.
func TestFeedState(t *testing.T) {
	s := newFeedServer(t)
	f := s.follow("")
	state := f.State()
	f.end()
	if len(state) == 0 || len(state) > 64 {
		t.Errorf("a state has %d bytes", len(state))
	}
	for _, want := range []string{"", catalogChanged} {
		stream, err := s.feed().Stream(t.Context(), "", state)
		if err != nil {
			t.Fatal(err)
		}
		if stream.Anew() != want {
			t.Errorf("it begins anew because of %q, want %q", stream.Anew(), want)
		}
		stream.Close()
		s.noticed()
		s.Exec(t, "ALTER TABLE users ALTER COLUMN id TYPE bigint")
	}
}
