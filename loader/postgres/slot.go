package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/cachesidecar/cachesidecar/loader"
)

// How a feed finds its replication slot, and makes one.

// foreignAfter is how often a slot is found in use before its user counts as none that hands over: the
// one before this host may still confirm what it has deleted.
const foreignAfter = 3

// findSlot looks at the slot. If there must be another one, anew says why.
func (s *stream) findSlot(ctx context.Context) error {
	name := s.feed.cfg.Slot
	rows, err := ask(ctx, s.gate, `SELECT coalesce(plugin, ''), coalesce(database = current_database(), false),
		coalesce(active_pid::text, ''), coalesce(wal_status, ''), coalesce(confirmed_flush_lsn - '0/0', 0)
		FROM pg_replication_slots WHERE slot_name = `+quoted(name))
	switch {
	case err != nil:
		return err
	case len(rows) == 0:
		s.anew = cmp.Or(s.anew, "there was no slot")
		return nil
	case rows[0][0] != "pgoutput" || rows[0][1] != "t":
		return fmt.Errorf("%w: slot %s is not one of pgoutput in this database: give another name",
			loader.ErrFeed, name)
	case rows[0][2] != "":
		if s.feed.inUse.Add(1) >= foreignAfter {
			s.feed.foreign.CompareAndSwap(nil, &rows[0][4])
		}
		return fmt.Errorf("slot %s is in use by process %s of the server: it is that of another cluster, "+
			"or its last user has gone and the server notices within 10 s", name, rows[0][2])
	case rows[0][3] == "lost":
		s.anew = cmp.Or(s.anew, "the slot has lost what it kept: max_slot_wal_keep_size")
	}
	if at := s.feed.foreign.Load(); at != nil && *at != rows[0][4] { // what was confirmed since then did not come here
		s.anew = cmp.Or(s.anew, "another host or cluster has followed the slot while this one was to do so")
	}
	if s.anew != "" {
		_, err = ask(ctx, s.gate, "SELECT pg_drop_replication_slot("+quoted(name)+")")
		return err
	}
	at, err := strconv.ParseUint(rows[0][4], 10, 64)
	s.confirmed.Store(at)
	return err
}

// makeSlot makes a temporary slot, and finds out which transactions its stream leaves out.
func (s *stream) makeSlot(ctx context.Context) error {
	free, err := ask(ctx, s.gate,
		"SELECT current_setting('max_replication_slots')::int - count(*) FROM pg_replication_slots")
	if err != nil {
		return err
	}
	if len(free) == 1 && (free[0][0] == "0" || free[0][0] == "1") { // else Begun fails, after each flush
		return fmt.Errorf("%w: %s of the server's replication slots are free, and making one needs two for a moment: "+
			"raise max_replication_slots, and restart the server, or drop slots", loader.ErrFeed, free[0][0])
	}
	// It waits for the transactions that are open, however long that takes.
	results, err := s.conn.Exec(ctx, "CREATE_REPLICATION_SLOT "+identifier(s.temporary())+
		" TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT").ReadAll()
	if err != nil {
		return err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < 3 {
		return errors.New("the server has answered CREATE_REPLICATION_SLOT in an unknown form")
	}
	rows, err := ask(ctx, s.gate, "BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT "+
		quoted(string(results[0].Rows[0][2]))+"; SELECT pg_current_snapshot()::text; COMMIT")
	if err != nil {
		return err
	}
	if len(rows) != 1 {
		return errors.New("the server has answered for a snapshot in an unknown form")
	}
	if _, err := ask(ctx, s.conn, "SELECT 1"); err != nil { // ends the export, which holds vacuum back
		return err
	}
	s.past, err = parseSnapshot(rows[0][0])
	return err
}

// Begun implements loader.FeedStream: the temporary slot becomes one that stays.
func (s *stream) Begun(ctx context.Context) error {
	if s.anew == "" {
		return nil
	}
	_, err := ask(ctx, s.gate, fmt.Sprintf("SELECT pg_copy_logical_replication_slot(%s, %s, false)",
		quoted(s.temporary()), quoted(s.feed.cfg.Slot)))
	if err == nil { // it would keep the log
		_, err = ask(ctx, s.conn, "DROP_REPLICATION_SLOT "+identifier(s.temporary()))
	}
	if err != nil {
		return err
	}
	s.feed.own()
	return s.start(ctx)
}

// Left returns a warning of each slot that may be left behind, once in the life of the feed.
func (s *stream) Left(ctx context.Context) (warnings []string, err error) {
	names, all, err := s.feed.left(ctx, s.gate)
	for i, name := range names {
		if _, told := s.feed.told.LoadOrStore(name, true); !told {
			warnings = append(warnings, all[i])
		}
	}
	return warnings, err
}
