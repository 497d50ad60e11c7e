package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// feedServer is a PostgreSQL with tables and a publication.
type feedServer struct {
	*origintest.Postgres
	t *testing.T
}

const feedTables = `
CREATE TABLE users (id int PRIMARY KEY, name text);
CREATE TABLE emails (id int PRIMARY KEY, user_id int, address text);
ALTER TABLE emails REPLICA IDENTITY FULL;
CREATE TABLE parts (region text, id int, body text, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE parts_eu PARTITION OF parts FOR VALUES IN ('eu');
CREATE TABLE parts_asia PARTITION OF parts FOR VALUES IN ('asia') PARTITION BY LIST (id);
CREATE TABLE others (id int PRIMARY KEY);
CREATE PUBLICATION cachesidecar FOR TABLE users, emails, parts, others WITH (publish_via_partition_root = true);`

// newFeedServer takes a shared server, or starts one with other settings.
func newFeedServer(t *testing.T, settings ...string) *feedServer {
	t.Helper()
	t.Parallel() // each has a server to itself, and mostly waits for it
	s := &feedServer{t: t}
	if len(settings) == 0 {
		s.Postgres = origintest.SharedPostgres(t)
	} else {
		s.Postgres = origintest.NewPostgres(t)
		s.Start(t, append([]string{"wal_level=logical"}, settings...)...)
	}
	for sql := range strings.SplitSeq(feedTables, ";\n") {
		s.Exec(t, sql)
	}
	return s
}

// config returns the settings of a feed of the tables.
func (s *feedServer) config() FeedConfig {
	return FeedConfig{
		DSN: s.DSN(), Messages: []string{"users", "pages"},
		Tables: map[string]FeedTable{
			"public.users":  {"users", "{id}"},
			"public.emails": {"users", "{user_id}"},
			"public.parts":  {"parts", "{region}/{id}"},
		},
	}
}

func feedOf(t *testing.T, cfg FeedConfig) *Feed {
	t.Helper()
	f, err := NewFeed(cfg)
	testenv.Must(t, err)
	return f
}

// refused checks that a feed refuses its settings or its server for a reason.
func refused(t *testing.T, what string, err error, why string) {
	t.Helper()
	if !errors.Is(err, loader.ErrFeed) || !strings.Contains(err.Error(), why) {
		t.Errorf("%s: %v, want %q", what, err, why)
	}
}

func (s *feedServer) feed() *Feed {
	s.t.Helper()
	return feedOf(s.t, s.config())
}

// followed is a stream that a goroutine receives.
type followed struct {
	loader.FeedStream
	t    *testing.T
	came chan *loader.Transaction
	err  chan error
	stop context.CancelFunc

	server *feedServer
}

// follow begins a stream.
func (s *feedServer) follow(gap loader.Gap) *followed {
	s.t.Helper()
	return s.followFeed(s.feed(), gap)
}

func (s *feedServer) followFeed(feed *Feed, gap loader.Gap) *followed {
	s.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	stream, err := feed.Stream(ctx, gap, "")
	testenv.Must(s.t, err)
	testenv.Must(s.t, stream.CloseGap(ctx))
	f := &followed{stream, s.t, make(chan *loader.Transaction, 100), make(chan error, 1), stop, s}
	go func() {
		for {
			t, err := stream.Receive(ctx)
			if err != nil {
				f.err <- err
				return
			}
			if t != nil && t.Rows > 0 {
				f.came <- t
			}
		}
	}()
	s.t.Cleanup(f.end)
	return f
}

// end ends the stream.
func (f *followed) end() {
	if f.stop != nil {
		f.stop()
		<-f.err
		f.Close()
		f.stop = nil
		f.server.noticed()
	}
}

// noticed waits until the server has noticed the end of all streams.
func (s *feedServer) noticed() {
	s.t.Helper()
	testenv.Succeeds(s.t, "the server to notice the end of a stream", func() error {
		rows, err := s.ask("SELECT active_pid FROM pg_replication_slots WHERE active")
		if err == nil && len(rows) > 0 {
			err = fmt.Errorf("%q", rows)
		}
		return err
	})
}

// next returns the next transaction that has changed a row.
func (f *followed) next() *loader.Transaction {
	f.t.Helper()
	select {
	case t := <-f.came:
		return t
	case err := <-f.err:
		f.err <- err
		f.t.Fatal(err)
	case <-testenv.Expired():
		f.t.Fatal("no transaction has come")
	}
	return nil
}

// text returns what a transaction has changed.
func text(t *loader.Transaction) string {
	var list []string
	for namespace, c := range t.Changed {
		if c.Flush != "" {
			list = append(list, namespace+": "+c.Flush)
			continue
		}
		list = append(list, namespace+" "+strings.Join(slices.Sorted(maps.Keys(c.Keys)), ","))
	}
	slices.Sort(list)
	return strings.Join(list, "; ")
}

// TestFeedRows checks which keys the changes of rows name.
func TestFeedRows(t *testing.T) {
	s := newFeedServer(t)
	f := s.follow("")
	if f.Gap() != "there was no slot" {
		t.Errorf("the gap is %q", f.Gap())
	}
	long := "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 1000) i)"
	for _, tc := range []struct{ sql, want string }{
		{"INSERT INTO users VALUES (1, 'a'), (2, 'b')", "users 1,2"},
		{"UPDATE users SET name = 'c' WHERE id = 1", "users 1"},
		{"UPDATE users SET id = 3 WHERE id = 2", "users 2,3"},
		{"DELETE FROM users WHERE id = 3", "users 3"},
		{"INSERT INTO emails VALUES (1, 7, 'x'), (2, NULL, 'y')", "users 7"},
		{"UPDATE emails SET user_id = 8 WHERE id = 1", "users 7,8"},
		{"DELETE FROM emails", "users 8"},
		{"INSERT INTO parts VALUES ('eu', 1, " + long + ")", "parts eu/1"},
		{"UPDATE parts SET id = 2", "parts eu/1,eu/2"},
		{"BEGIN; UPDATE parts SET body = 'b'; INSERT INTO users VALUES (9); SAVEPOINT s; INSERT INTO users VALUES (10); " +
			"ROLLBACK TO s; INSERT INTO users VALUES (11); COMMIT", "parts eu/2; users 11,9"},
		{"TRUNCATE users, others", "users: a table was truncated"},
		{"SELECT pg_logical_emit_message(true, 'cachesidecar', 'delete users a b')", "users a b"},
		{"SELECT pg_logical_emit_message(true, 'cachesidecar', 'flush pages')", "pages: a message asked for it"},
		{"SELECT pg_logical_emit_message(false, 'cachesidecar', 'delete pages now')", "pages now"},
		{"INSERT INTO users SELECT generate_series(1, 10001)", "users: more than 10000 keys changed at once"},
	} {
		s.Exec(t, tc.sql)
		if got := text(f.next()); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.sql, got, tc.want)
		}
	}
	// What names no key of a namespace of the feed.
	for _, sql := range []string{
		"BEGIN; INSERT INTO users VALUES (99999); ROLLBACK",
		"INSERT INTO others VALUES (1)",
		"SELECT pg_logical_emit_message(true, 'another', 'delete users 1')",
	} {
		s.Exec(t, sql)
	}
	for _, text := range []string{"delete others 1", "delete users", "delete users ", "flush others", "flush", "drop users 1", ""} {
		s.Exec(t, "SELECT pg_logical_emit_message(true, 'cachesidecar', '"+text+"')")
		if m := f.next(); len(m.Changed) != 0 {
			t.Errorf("message %q: %v", text, m.Changed)
		}
	}
}

// TestFeedPrepared checks that a prepared transaction comes when it commits.
func TestFeedPrepared(t *testing.T) {
	s := newFeedServer(t)
	f := s.follow("")
	s.Exec(t, "BEGIN; INSERT INTO users VALUES (1); PREPARE TRANSACTION 'one'")
	s.Exec(t, "INSERT INTO users VALUES (2)")
	if got := text(f.next()); got != "users 2" {
		t.Errorf("before its commit: %q", got)
	}
	s.Exec(t, "COMMIT PREPARED 'one'")
	m := f.next()
	if got := text(m); got != "users 1" {
		t.Errorf("after its commit: %q", got)
	}
	f.sees(m)
}

// sees waits until readers see a transaction.
func (f *followed) sees(m *loader.Transaction) {
	f.t.Helper()
	testenv.Succeeds(f.t, "readers to see it", func() error {
		v, err := f.View(f.t.Context())
		if err == nil && !v.Sees(m) {
			err = errors.New("they do not")
		}
		return err
	})
}

// TestFeedGate checks that a transaction which has come may not be visible yet, and that View knows:
// a synchronous standby that does not answer holds all commits back, and the stream brings them.
func TestFeedGate(t *testing.T) {
	s := newFeedServer(t)
	f := s.follow("")
	s.standby()
	end := s.hangs("INSERT INTO users VALUES (1)")
	m := f.next()
	for range 20 {
		v, err := f.View(t.Context())
		testenv.Must(t, err)
		if v.Sees(m) {
			t.Fatal("a transaction is visible that waits for a standby")
		}
	}
	end()
	f.sees(m)
	f.catalogHangs()
}

// TestFeedGap checks that a slot that was made does not count as there before everything from before
// it was dropped, and that a commit that hangs meanwhile is waited for.
func TestFeedGap(t *testing.T) {
	s := newFeedServer(t)
	ctx := t.Context()
	stream, err := s.feed().Stream(ctx, "", "")
	testenv.Must(t, err)
	stream.Close() // before Begun
	s.standby()
	hangs := s.hangs("INSERT INTO users VALUES (1)")
	ended := make(chan error, 1)
	go func() {
		var err error
		if stream, err = s.feed().Stream(ctx, "", ""); err == nil && stream.Gap() != "there was no slot" {
			err = fmt.Errorf("after a beginning that did not end: %q", stream.Gap())
		}
		ended <- err
	}()
	testenv.Succeeds(t, "the slot to wait for the commit", func() error {
		rows, err := s.ask("SELECT 1 FROM pg_stat_activity WHERE backend_type = 'walsender' AND wait_event = 'transactionid'")
		if err == nil && len(rows) != 1 {
			err = errors.New("it does not")
		}
		return err
	})
	hangs()
	testenv.Must(t, <-ended)
	defer stream.Close()
	testenv.Succeeds(t, "readers to see it", func() error {
		v, err := stream.View(ctx)
		if err == nil && !v.SeesPast() {
			err = errors.New("they do not")
		}
		return err
	})
}

// standby has commits wait for a standby that is not there.
func (s *feedServer) standby() {
	s.t.Helper()
	s.Exec(s.t, "ALTER SYSTEM SET synchronous_standby_names = 'missing'")
	s.Exec(s.t, "SELECT pg_reload_conf()")
	testenv.Succeeds(s.t, "commits to wait", s.commitWaits) // a process of the server has to hear of it
}

// commitWaits makes a commit that changes no row. It returns an error if the commit waits for nothing.
func (s *feedServer) commitWaits() error {
	conn, err := pgconn.Connect(s.t.Context(), s.DSN())
	if err != nil {
		return err
	}
	defer conn.Close(s.t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Exec(s.t.Context(), "SELECT pg_logical_emit_message(true, 'another', '')").ReadAll()
		ended <- err
	}()
	sql := fmt.Sprintf("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = %d AND wait_event = 'SyncRep'", conn.PID())
	for {
		rows, err := s.ask(sql)
		if err != nil || len(rows) > 0 {
			return errors.Join(err, <-ended)
		}
		select {
		case err := <-ended:
			return errors.Join(err, errors.New("it does not wait"))
		default:
		}
	}
}

// hangs begins a statement whose commit waits for a standby. The result ends the wait.
func (s *feedServer) hangs(sql string) (end func()) {
	s.t.Helper()
	conn, err := pgconn.Connect(s.t.Context(), s.DSN())
	testenv.Must(s.t, err)
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Exec(s.t.Context(), sql).ReadAll()
		ended <- err
	}()
	s.waits(conn.PID(), "SyncRep")
	return func() {
		s.t.Helper()
		rows, err := s.ask(fmt.Sprintf("SELECT pg_cancel_backend(%d)", conn.PID())) // the wait, not the commit
		if err = errors.Join(err, <-ended, conn.Close(s.t.Context())); err != nil || len(rows) != 1 {
			s.t.Fatal(err, rows)
		}
	}
}

// waits waits until a process of the server waits for something.
func (s *feedServer) waits(pid uint32, event string) {
	s.t.Helper()
	testenv.Succeeds(s.t, "a wait for "+event, func() error {
		rows, err := s.ask(fmt.Sprintf("SELECT coalesce(wait_event, '') FROM pg_stat_activity WHERE pid = %d", pid))
		if err == nil && (len(rows) != 1 || rows[0][0] != event) {
			err = fmt.Errorf("%q", rows)
		}
		return err
	})
}

func (s *feedServer) ask(sql string) (rows [][]string, err error) {
	ctx := context.Background()
	err = s.Use(ctx, func(c *pgconn.PgConn) error {
		rows, err = ask(ctx, c, 0, sql)
		return err
	})
	return rows, err
}

// TestFeedConfirm checks that what is confirmed does not come again, and the rest does; and that the
// slot keeps nothing while other tables are busy.
func TestFeedConfirm(t *testing.T) {
	s := newFeedServer(t)
	f := s.follow("")
	s.Exec(t, "INSERT INTO users VALUES (1)")
	first := f.next()
	s.Exec(t, "INSERT INTO users VALUES (2)")
	f.next()
	f.Confirm(first.End)
	f.Forget(f.Checkpoint())
	s.confirmed(first.End)
	f.end()
	f = s.follow("")
	if f.Gap() != "" {
		t.Errorf("the slot is there, and it has a gap: %s", f.Gap())
	}
	if got := text(f.next()); got != "users 2" {
		t.Errorf("after the first was confirmed: %q", got)
	}
	// The server may name an earlier position while it reads its log again.
	f.Confirm(first.End - 1)
	if at := loader.Position(f.FeedStream.(*stream).confirmed.Load()); at != first.End {
		t.Errorf("an earlier position: confirmed up to %s, want %s", position(at), position(first.End))
	}
}

// position returns the form that PostgreSQL uses.
func position(p loader.Position) string { return fmt.Sprintf("%X/%X", uint32(p>>32), uint32(p)) }

// TestFeedSlots checks what is done about a slot of another kind, in use, dropped or lost.
func TestFeedSlots(t *testing.T) {
	s := newFeedServer(t, "max_slot_wal_keep_size=1MB", "max_wal_size=32MB")
	f := s.follow("")
	if _, err := s.feed().Stream(t.Context(), "", ""); err == nil || !strings.Contains(err.Error(), "is in use by process") {
		t.Errorf("a slot in use: %v", err)
	}
	f.end()
	s.Exec(t, "SELECT pg_drop_replication_slot('cachesidecar')")
	s.Exec(t, "SELECT pg_create_physical_replication_slot('cachesidecar')")
	if _, err := s.feed().Stream(t.Context(), "", ""); !errors.Is(err, loader.ErrFeed) {
		t.Errorf("a slot of another kind: %v", err)
	}
	s.Exec(t, "SELECT pg_drop_replication_slot('cachesidecar')")
	f = s.follow("")
	f.end()
	s.Exec(t, "SELECT pg_create_logical_replication_slot('of_another', 'pgoutput')")
	for range 6 {
		s.Exec(t, "INSERT INTO others SELECT max(id) + i FROM generate_series(1, 10) i, (SELECT coalesce(max(id), 0) id FROM others) o GROUP BY i")
		s.Exec(t, "SELECT pg_switch_wal()")
		s.Exec(t, "CHECKPOINT")
	}
	f = s.follow("")
	if !strings.Contains(string(f.Gap()), "lost what it kept") {
		t.Errorf("a slot that has lost its log: %q", f.Gap())
	}
	if left, err := s.feed().Check(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("another slot that has lost its log, and keeps nothing: %q, %v", left, err)
	}
}
