package postgres

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachesidecar/cachesidecar/loader"
)

// Which slots are a feed's, and which are left behind: each of these keeps the server's log for ever.

// leftQuery asks for slots of a feed's kind that are not in use. One that has lost its log keeps nothing.
const leftQuery = `SELECT slot_name, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint
	FROM pg_replication_slots WHERE plugin = 'pgoutput' AND database = current_database()
		AND NOT active AND restart_lsn IS NOT NULL ORDER BY slot_name`

// Slot says which slot of which server the feed follows. One feed alone can do so, whichever the database:
// a server has one slot of a name.
func (f *Feed) Slot() string { return f.slotText(f.cfg.Slot) }

// slotText names a slot and its server.
func (f *Feed) slotText(name string) string {
	var servers []string
	if c, err := f.config(false); err == nil {
		_, first := pgconn.NetworkAddress(c.Host, c.Port)
		servers = []string{first}
		for _, other := range c.Fallbacks { // each server comes again if it may do without TLS
			if _, a := pgconn.NetworkAddress(other.Host, other.Port); !slices.Contains(servers, a) {
				servers = append(servers, a)
			}
		}
	}
	return fmt.Sprintf("slot %q of the server %s", name, strings.Join(servers, ", "))
}

// slot is what the server says of a feed's slot.
type slot struct {
	user      string // its process of the server; "": it is not in use
	lost      bool   // what it kept
	confirmed loader.Position
}

// slotQuery asks for a slot.
const slotQuery = `SELECT coalesce(plugin, ''), coalesce(database = current_database(), false),
	coalesce(active_pid::text, ''), coalesce(wal_status, ''), coalesce(confirmed_flush_lsn - '0/0', 0)
	FROM pg_replication_slots WHERE slot_name = `

// slotOf looks at the slot; nil: there is none.
func (f *Feed) slotOf(ctx context.Context, conn *pgconn.PgConn) (*slot, error) {
	rows, err := ask(ctx, conn, 5, slotQuery+quoted(f.cfg.Slot))
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	row := rows[0]
	if row[0] != "pgoutput" || row[1] != "t" {
		return nil, fmt.Errorf("%w: slot %s is not one of pgoutput in this database: give another name, or drop it",
			loader.ErrFeed, f.cfg.Slot)
	}
	at, err := strconv.ParseUint(row[4], 10, 64)
	return &slot{user: row[2], lost: row[3] == "lost", confirmed: loader.Position(at)}, err
}

// Beside tells a feed of the slots of all feeds of its configuration, as Slot names them: they are not left
// behind. It is called before the feed is used.
func (f *Feed) Beside(slots []string) { f.beside = slots }

// maxTold is how many slots a feed tells of.
const maxTold = 100

// leftSlots returns the slots that may be left behind, with what is to be done.
func (f *Feed) leftSlots(ctx context.Context, conn *pgconn.PgConn) (names, warnings []string, err error) {
	rows, err := ask(ctx, conn, 2, leftQuery)
	if err != nil {
		return nil, nil, err
	}
	for _, row := range rows {
		if len(names) == maxTold {
			break
		}
		name := row[0]
		if !slotName.MatchString(name) || name == f.cfg.Slot || slices.Contains(f.beside, f.slotText(name)) {
			continue
		}
		kept, _ := strconv.ParseUint(row[1], 10, 64) // zero if it is not known
		names = append(names, name)
		warnings = append(warnings, fmt.Sprintf("slot %s of the database is not in use, and keeps %s of the server's "+
			"log and what comes: if no other cluster and no subscription has it, "+
			"SELECT pg_drop_replication_slot(%s)", name, humanize.IBytes(kept), quoted(name)))
	}
	return names, warnings, nil
}
