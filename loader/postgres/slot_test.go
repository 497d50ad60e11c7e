package postgres

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

const othersMoved = "changes are confirmed that did not come here"

// certified follows the slot up to a change, and returns the checkpoint of then.
func (s *feedServer) certified() (known loader.Checkpoint) {
	s.t.Helper()
	f := s.follow("")
	s.Exec(s.t, "INSERT INTO users SELECT coalesce(max(id), 0) + 1 FROM users")
	m := f.next()
	f.Confirm(m.End)
	known = f.Checkpoint()
	f.end()
	return known
}

// confirmed waits until the server has been told what it need not keep.
func (s *feedServer) confirmed(at loader.Position) {
	s.t.Helper()
	testenv.Succeeds(s.t, "the slot to be confirmed", func() error {
		rows, err := s.ask("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'cachesidecar'")
		if err == nil && rows[0][0] != position(at) {
			err = errors.New("it is confirmed up to " + rows[0][0])
		}
		return err
	})
}

// TestFeedSlotMoved checks that a host has a gap if the slot is not the one that was followed, or not where it
// was left, and goes on if it is.
func TestFeedSlotMoved(t *testing.T) {
	s := newFeedServer(t)
	const (
		write   = "UPDATE users SET name = 'b'"
		drop    = "SELECT pg_drop_replication_slot('cachesidecar')"
		take    = "SELECT pg_logical_slot_get_binary_changes('cachesidecar', NULL, NULL, 'proto_version', '1', 'publication_names', 'cachesidecar')"
		advance = "SELECT pg_replication_slot_advance('cachesidecar', pg_current_wal_lsn())"
	)
	for i, tc := range []struct {
		name, gap string
		do        []string
	}{
		{"changes alone", "", []string{write}},
		{"made again", othersMoved, []string{drop, "SELECT pg_create_logical_replication_slot('cachesidecar', 'pgoutput')"}},
		{"advanced by a record", othersMoved, []string{"SELECT pg_logical_emit_message(true, 'x', '')", advance}},
		{"a copy from before others moved it", "", []string{
			"SELECT pg_copy_logical_replication_slot('cachesidecar', 'copy')", write, advance, drop,
			"SELECT pg_copy_logical_replication_slot('copy', 'cachesidecar')", "SELECT pg_drop_replication_slot('copy')"}},
		{"nothing", "", nil},
		{"looked at", "", []string{write, strings.Replace(take, "get", "peek", 1)}},
		{"made again after changes", othersMoved, []string{
			write, drop, "SELECT pg_create_logical_replication_slot('cachesidecar', 'pgoutput')"}},
		{"made again with two_phase", othersMoved, []string{
			write, drop, "SELECT pg_create_logical_replication_slot('cachesidecar', 'pgoutput', false, true)"}},
		{"advanced", othersMoved, []string{write, advance}},
		{"followed by another", othersMoved, []string{write, take}},
		{"dropped", "there was no slot", []string{drop}},
		{"of another kind, then dropped", "there was no slot", []string{
			drop, "SELECT pg_create_logical_replication_slot('cachesidecar', 'test_decoding')", write, drop}},
		{"a copy of what others moved", othersMoved, []string{
			write, advance, "SELECT pg_copy_logical_replication_slot('cachesidecar', 'copy')", drop,
			"SELECT pg_copy_logical_replication_slot('copy', 'cachesidecar')", "SELECT pg_drop_replication_slot('copy')"}},
	} {
		if i == 4 && !testenv.Long() {
			break
		}
		known := s.certified()
		for _, sql := range tc.do {
			s.Exec(t, sql)
		}
		stream, err := s.feed().Stream(t.Context(), "", known)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if (stream.Gap() == "") != (tc.gap == "") || !strings.Contains(string(stream.Gap()), tc.gap) {
			t.Errorf("%s: the gap is %q, want %q", tc.name, stream.Gap(), tc.gap)
		}
		if tc.gap == "" && stream.Gap() == "" && slices.Contains(tc.do, write) { // it brings what has changed
			testenv.Succeeds(t, tc.name, func() error {
				m, err := stream.Receive(t.Context())
				if err == nil && (m == nil || m.Rows == 0 || m.End <= parseMark(known).at) {
					err = errors.New("the change has not come")
				}
				return err
			})
		}
		stream.Close()
		s.noticed()
	}
}

// TestFeedSlotMovedMeanwhile checks that a stream does not begin at a slot that others move between the look at it
// and the beginning.
func TestFeedSlotMovedMeanwhile(t *testing.T) {
	s := newFeedServer(t)
	s.certified()
	for _, moved := range []bool{false, true} {
		f := s.feed()
		st := &stream{feed: f, decoder: newDecoder(f.tables, nil)}
		var err, err2 error
		st.gate, err = f.connect(t.Context(), false)
		st.conn, err2 = f.connect(t.Context(), true)
		if err = errors.Join(err, err2); err == nil {
			err = st.findSlot(t.Context(), mark{})
		}
		if err != nil || st.gap != "" {
			t.Fatal(err, st.gap)
		}
		if moved {
			s.Exec(t, "SELECT pg_logical_emit_message(true, 'x', '')")
			s.Exec(t, "SELECT pg_replication_slot_advance('cachesidecar', pg_current_wal_lsn())")
		}
		err = st.start(t.Context())
		if (err != nil) != moved || moved && !strings.Contains(err.Error(), "was moved while the stream began") {
			t.Errorf("the slot is moved: %v, the stream begins: %v", moved, err)
		}
		st.Close()
		s.noticed()
	}
}

// TestFeedSlotUnfit checks that a slot is refused that the feed cannot follow, also before a sidecar starts.
func TestFeedSlotUnfit(t *testing.T) {
	s := newFeedServer(t)
	s.Exec(t, "CREATE DATABASE other")
	for _, tc := range []struct{ dsn, sql string }{
		{s.DSN(), "SELECT pg_create_physical_replication_slot('cachesidecar')"},
		{s.DSN(), "SELECT pg_create_logical_replication_slot('cachesidecar', 'test_decoding')"},
		{s.DSN() + " dbname=other", "SELECT pg_create_logical_replication_slot('cachesidecar', 'pgoutput')"},
	} {
		s.execAt(tc.dsn, tc.sql)
		const want = "slot cachesidecar is not one of pgoutput in this database"
		refused(t, tc.sql, testenv.ErrorOf(s.feed().Stream(t.Context(), "", "")), want)
		refused(t, tc.sql+", asked before", testenv.ErrorOf(s.feed().Check(t.Context())), want)
		s.Exec(t, "SELECT pg_drop_replication_slot('cachesidecar')")
	}
}

// execAt executes a statement at another database.
func (s *feedServer) execAt(dsn, sql string) {
	s.t.Helper()
	conn, err := pgconn.Connect(s.t.Context(), dsn)
	if err == nil {
		_, err = conn.Exec(s.t.Context(), sql).ReadAll()
		err = errors.Join(err, conn.Close(s.t.Context()))
	}
	testenv.Must(s.t, err)
}

// TestFeedPublicationAgain checks that a host has a gap if the publication was away, or had another name, when
// a row changed while no host followed: the server cannot read its log from there. No host has heard of a checkpoint.
func TestFeedPublicationAgain(t *testing.T) {
	s := newFeedServer(t)
	for _, there := range [][2]string{
		{"DROP PUBLICATION cachesidecar", "CREATE PUBLICATION cachesidecar FOR TABLE users, emails, parts WITH (publish_via_partition_root = true)"},
		{"ALTER PUBLICATION cachesidecar RENAME TO away", "ALTER PUBLICATION away RENAME TO cachesidecar"},
	} {
		s.certified()
		s.Exec(t, there[0])
		s.Exec(t, "UPDATE users SET name = 'b'")
		s.Exec(t, there[1])
		stream, err := s.feed().Stream(t.Context(), "", "")
		if err != nil || stream.Gap() != "" {
			t.Fatal(err, stream.Gap())
		}
		for err == nil {
			_, err = stream.Receive(t.Context())
		}
		if !errors.Is(err, loader.ErrGap) || errors.Is(err, loader.ErrFeed) {
			t.Errorf("%s: %v", there[0], err)
		}
		testenv.Should(t, stream.GiveUp(t.Context()))
		stream.Close()
		f := s.follow("")
		if f.Gap() == "" {
			t.Errorf("%s: the next stream goes on", there[0])
		}
		f.end()
	}
}

// TestFeedStuck checks that a host has a gap if the server fails each time at the same place of its log, and
// not if an operator ends its connection, or what it does, each time.
func TestFeedStuck(t *testing.T) {
	s := newFeedServer(t)
	s.Exec(t, "CREATE TYPE mood AS ENUM ('sad', 'ok')")
	s.Exec(t, "ALTER TABLE users ADD mood mood")
	s.Exec(t, "INSERT INTO users (id, mood) VALUES (1, 'ok')")
	s.certified()
	feed := s.feed()
	fails := func(why string, gap bool) {
		t.Helper()
		stream, err := feed.Stream(t.Context(), "", "")
		if err != nil || stream.Gap() != "" {
			t.Fatal(err, stream.Gap())
		}
		defer s.noticed()
		defer stream.Close()
		if strings.HasPrefix(why, "SELECT") {
			s.Exec(t, why)
		}
		for err == nil {
			_, err = stream.Receive(t.Context())
		}
		if errors.Is(err, loader.ErrGap) != gap || errors.Is(err, loader.ErrFeed) {
			t.Errorf("%s: %v, want a gap: %v", why, err, gap)
		}
	}
	for range maxFailures { // the first is an error of the stream, the second one of the connection
		fails("SELECT pg_cancel_backend(active_pid) FROM pg_replication_slots", false)
		fails("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots", false)
	}
	s.Exec(t, "DELETE FROM pg_enum WHERE enumlabel = 'ok'") // as if the row were damaged
	s.Exec(t, "UPDATE users SET name = 'b'")
	for i := range maxFailures {
		fails("a row without a text", i == maxFailures-1)
	}
}

// TestFeedFailures checks that only failures at the same place of the log add up to a gap.
func TestFeedFailures(t *testing.T) {
	var c failures
	for i, from := range []uint64{1, 1, 2, 2, 1, 1, 1} {
		err := c.count(&pgconn.PgError{Code: "22P03"}, from)
		if gap := i == 6; errors.Is(err, loader.ErrGap) != gap {
			t.Errorf("failure %d, at %d: %v, want a gap: %v", i, from, err, gap)
		}
	}
}

// TestFeedServerEnds checks that a server which is stopped does not wait for what the feed has not told it to
// forget.
func TestFeedServerEnds(t *testing.T) {
	s := newFeedServer(t)
	f := s.follow("")
	s.Exec(t, "INSERT INTO users VALUES (1)")
	f.Confirm(f.next().End)
	testenv.Must(t, s.Process.Process.Signal(syscall.SIGINT))
	select {
	case <-f.err:
	case <-testenv.Expired():
		t.Fatal("the server waits")
	}
	f.stop = nil
	f.Close()
	_ = s.Process.Wait()
}
