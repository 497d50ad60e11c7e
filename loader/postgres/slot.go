package postgres

import (
	"cmp"
	"context"
	"fmt"
	"strconv"

	"github.com/cachesidecar/cachesidecar/loader"
)

// How a feed finds its replication slot, and makes one.

// findSlot looks at the slot. If there must be another one, gap says why: known is what was certified last.
func (st *stream) findSlot(ctx context.Context, known mark) error {
	name := st.feed.cfg.Slot
	found, err := st.feed.slotOf(ctx, st.gate)
	switch {
	case err != nil:
		return err
	case found == nil:
		st.gap = cmp.Or(st.gap, "there was no slot")
		return nil
	case found.user != "":
		return fmt.Errorf("slot %s is in use by process %s of the server: it is that of another cluster, "+
			"or its last user has gone and the server notices within 10 s", name, found.user)
	case found.lost:
		st.gap = cmp.Or(st.gap, "the slot has lost what it kept: max_slot_wal_keep_size")
	case known.at != 0 && found.confirmed > known.at:
		st.gap = cmp.Or(st.gap, "changes are confirmed that did not come here: the slot was made again, moved, or "+
			"followed by another client or cluster")
	}
	if st.gap != "" {
		_, err = ask(ctx, st.gate, 0, "SELECT pg_drop_replication_slot("+quoted(name)+")")
		return err
	}
	st.begins(found.confirmed)
	return nil
}

// begins notes where the slot begins: what is before has been deleted, or flushed.
func (st *stream) begins(at loader.Position) {
	st.forgotten.Store(uint64(at))
	st.confirmed.Store(uint64(at))
}

// unmoved checks that the stream begins where the slot was found to be: nobody else moves it from now on.
func (st *stream) unmoved(ctx context.Context) error {
	found, err := st.feed.slotOf(ctx, st.gate)
	if err == nil && (found == nil || uint64(found.confirmed) != st.forgotten.Load()) {
		err = fmt.Errorf("slot %s was moved while the stream began", st.feed.cfg.Slot)
	}
	return err
}

// makeSlot makes a temporary slot, and finds out which transactions its stream leaves out.
func (st *stream) makeSlot(ctx context.Context) error {
	free, err := one(ask(ctx, st.gate, 1,
		"SELECT current_setting('max_replication_slots')::int - count(*) FROM pg_replication_slots"))
	if err != nil {
		return err
	}
	if free[0] == "0" || free[0] == "1" { // else CloseGap fails, after each flush
		return fmt.Errorf("%w: %s of the server's replication slots are free, and making one needs two for a moment: "+
			"raise max_replication_slots, and restart the server, or drop slots", loader.ErrFeed, free[0])
	}
	// It waits for the transactions that are open, however long that takes.
	conn := timeoutConnBelow(st.conn.Conn())
	conn.waitAtMost(0)
	defer conn.waitAtMost(feedTime)
	results, err := execute(ctx, st.conn, "CREATE_REPLICATION_SLOT "+identifier(st.temporary())+
		" TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT")
	if err != nil {
		return err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < 3 {
		return errUnknownForm
	}
	past, err := one(ask(ctx, st.gate, 1, "BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT "+
		quoted(string(results[0].Rows[0][2]))+"; SELECT pg_current_snapshot()::text; COMMIT"))
	if err != nil {
		return err
	}
	if _, err := ask(ctx, st.conn, 0, "SELECT 1"); err != nil { // ends the export, which holds vacuum back
		return err
	}
	st.past, err = parseSnapshot(past[0])
	return err
}

// CloseGap implements loader.FeedStream: the temporary slot becomes one that stays.
func (st *stream) CloseGap(ctx context.Context) error {
	if st.gap == "" {
		return nil
	}
	copied, err := one(ask(ctx, st.gate, 1, fmt.Sprintf(
		"SELECT lsn - '0/0' FROM pg_copy_logical_replication_slot(%s, %s, false)",
		quoted(st.temporary()), quoted(st.feed.cfg.Slot))))
	if err == nil { // it would keep the log
		_, err = ask(ctx, st.conn, 0, "DROP_REPLICATION_SLOT "+identifier(st.temporary()))
	}
	if err != nil {
		return err
	}
	at, err := strconv.ParseUint(copied[0], 10, 64)
	if err != nil {
		return err
	}
	st.begins(loader.Position(at))
	return st.start(ctx)
}

// LeftBehind returns a warning of each slot that may be left behind, once in the life of the feed.
func (st *stream) LeftBehind(ctx context.Context) (warnings []string, err error) {
	names, all, err := st.feed.leftSlots(ctx, st.gate)
	for i, name := range names {
		if st.feed.tells.Load() == maxTold {
			break
		}
		if _, told := st.feed.told.LoadOrStore(name, true); !told {
			st.feed.tells.Add(1)
			warnings = append(warnings, all[i])
		}
	}
	return warnings, err
}
