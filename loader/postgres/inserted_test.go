package postgres

import (
	"testing"

	"github.com/cachesidecar/cachesidecar/loader"
)

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

// TestFeedCheckpoint checks that a stream has a gap if its checkpoint is not what another host has certified: the
// catalog has changed while no host followed.
func TestFeedCheckpoint(t *testing.T) {
	s := newFeedServer(t)
	f := s.follow("")
	known := f.Checkpoint()
	f.end()
	if len(known) == 0 || len(known) > 64 {
		t.Errorf("a checkpoint has %d bytes", len(known))
	}
	for _, want := range []loader.Gap{"", catalogChanged} {
		stream, err := s.feed().Stream(t.Context(), "", known)
		if err != nil {
			t.Fatal(err)
		}
		if stream.Gap() != want {
			t.Errorf("the gap is %q, want %q", stream.Gap(), want)
		}
		stream.Close()
		s.noticed()
		s.Exec(t, "ALTER TABLE users ALTER COLUMN id TYPE bigint")
	}
}
