package postgres

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// stream is a connection to the slot of a feed, with a second one that asks what readers see.
type stream struct {
	feed    *Feed
	conn    *pgconn.PgConn // the stream
	gate    *pgconn.PgConn // statements
	decoder *decoder

	anew    string   // why the slot was made
	past    Snapshot // of the transactions that are not in a slot that was made
	catalog string   // a digest
	started bool

	confirmed atomic.Uint64 // the slot need not keep what is before it
	received  loader.Position
	told      time.Time // when the server was told of the confirmed position
}

const catalogChanged = "the publication, a table of it or a column has changed"

// statusEvery is how often the server is told the position, at least.
const statusEvery = time.Second

// Stream implements loader.Feed.
func (f *Feed) Stream(ctx context.Context, anew, state string) (_ loader.FeedStream, err error) {
	s := &stream{feed: f, decoder: newDecoder(f.tables, f.cfg.Messages), anew: anew}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.gate, err = f.connect(ctx, false); err != nil {
		return nil, err
	}
	if s.catalog, err = f.check(ctx, s.gate); err != nil {
		if errors.Is(err, loader.ErrFeed) { // also hosts that do not know of it must begin anew
			s.anew = "the server did not fit the settings"
			_ = s.findSlot(ctx) // the error that is returned tells more
		}
		return nil, err
	}
	if state == "" {
		state, _ = f.catalog.Load().(string)
	}
	if state != "" && state != s.catalog { // while this host followed nothing
		s.anew = cmp.Or(s.anew, catalogChanged)
	}
	if s.conn, err = f.connect(ctx, true); err != nil {
		return nil, err
	}
	s.decoder.encoding = s.conn.ParameterStatus("server_encoding")
	if err := s.findSlot(ctx); err != nil {
		return nil, err
	}
	if s.anew != "" {
		if err := s.makeSlot(ctx); err != nil {
			return nil, err
		}
		return s, nil
	}
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	f.own()
	return s, nil
}

// Anew implements loader.FeedStream.
func (s *stream) Anew() string { return s.anew }

// State implements loader.FeedStream.
func (s *stream) State() string { return s.catalog }

// temporary is the name of the slot that is there until everything from before it was dropped. It
// ends with the connection: if this host ends before, the next one begins anew too.
func (s *stream) temporary() string {
	return fmt.Sprintf("%.50s_%d", s.feed.cfg.Slot, s.conn.PID())
}

// start begins the stream where the slot was confirmed.
func (s *stream) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, feedTime)
	defer cancel()
	s.conn.Frontend().Send(&pgproto3.Query{String: "START_REPLICATION SLOT " + identifier(s.feed.cfg.Slot) +
		" LOGICAL 0/0 (proto_version '1', messages 'true', publication_names " +
		quoted(identifier(s.feed.cfg.Publication)) + ")"})
	if err := s.conn.Frontend().Flush(); err != nil {
		return err
	}
	for {
		m, err := s.conn.ReceiveMessage(ctx)
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *pgproto3.CopyBothResponse:
			s.started = true
			s.feed.catalog.Store(s.catalog)
			return nil
		case *pgproto3.ErrorResponse:
			return pgconn.ErrorResponseToPgError(m)
		}
	}
}

// Receive implements loader.FeedStream. It tells the server the position.
func (s *stream) Receive(ctx context.Context) (*loader.Transaction, error) {
	for {
		if err := s.Alive(); err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		wait, cancel := context.WithTimeout(ctx, statusEvery/2)
		m, err := s.conn.ReceiveMessage(wait)
		cancel()
		switch {
		case err != nil && pgconn.Timeout(err) && ctx.Err() == nil:
			return nil, nil
		case err != nil:
			return nil, err
		}
		switch m := m.(type) {
		case *pgproto3.CopyData:
			t, err := s.take(m.Data)
			if err != nil || t != nil {
				return t, err
			}
		case *pgproto3.ErrorResponse:
			err := pgconn.ErrorResponseToPgError(m)
			if noUTF8(err) { // it would come again: only a stream that begins anew gets past it
				return nil, fmt.Errorf("%w: a row has a text that has no form in UTF-8: mend the row, or leave its "+
					"column out of the publication (%w)", loader.ErrFeed, err)
			}
			return nil, err
		case *pgproto3.CopyDone:
			return nil, errors.New("the server has ended the stream")
		}
	}
}

// take takes a message of the stream.
func (s *stream) take(b []byte) (*loader.Transaction, error) {
	f := &fields{rest: b}
	switch kind := f.byte(); kind {
	case 'w':
		f.skip(8)
		s.received = max(s.received, loader.Position(f.uint64()))
		f.skip(8)
		if f.short {
			return nil, errors.New("a message of the stream is cut short")
		}
		return s.decoder.next(f.rest)
	case 'k':
		end := loader.Position(f.uint64())
		f.skip(8)
		ask := f.byte() != 0
		if f.short {
			return nil, errors.New("a message of the stream is cut short")
		}
		s.received = max(s.received, end)
		if s.decoder.open == nil {
			return &loader.Transaction{End: end}, s.answer(ask) // nothing has changed up to there
		}
		return nil, s.answer(ask)
	default:
		return nil, fmt.Errorf("an unknown message %q of the stream", kind)
	}
}

func (s *stream) answer(asked bool) error {
	if !asked {
		return nil
	}
	return s.tell()
}

// Confirm implements loader.FeedStream. The position never goes back: the server may name one before
// the last commit, or before the slot's own when it reads its log again, and not each release ignores it.
func (s *stream) Confirm(at loader.Position) {
	if uint64(at) > s.confirmed.Load() {
		s.confirmed.Store(uint64(at))
	}
}

// Alive implements loader.FeedStream.
func (s *stream) Alive() error {
	if time.Since(s.told) < statusEvery {
		return nil
	}
	return s.tell()
}

// tell tells the server the position.
func (s *stream) tell() error {
	at := s.confirmed.Load()
	b := append(make([]byte, 0, 34), 'r')
	b = binary.BigEndian.AppendUint64(b, max(uint64(s.received), at))
	b = binary.BigEndian.AppendUint64(b, at)
	b = binary.BigEndian.AppendUint64(b, at)
	b = binary.BigEndian.AppendUint64(b, uint64(time.Since(serverTime(0)).Microseconds()))
	s.conn.Frontend().Send(&pgproto3.CopyData{Data: append(b, 0)})
	s.told = time.Now()
	return s.conn.Frontend().Flush()
}

// GiveUp implements loader.FeedStream: the slot is dropped. The server notices the end of the stream in
// a moment.
func (s *stream) GiveUp(ctx context.Context) (err error) {
	_ = s.conn.Close(ctx) // nothing is lost
	for pause := time.Millisecond; ; pause *= 2 {
		if _, err = ask(ctx, s.gate, "SELECT pg_drop_replication_slot("+quoted(s.feed.cfg.Slot)+")"); err == nil {
			return nil
		}
		if !kv.Sleep(ctx, pause) {
			return err
		}
	}
}

// Close ends the connections.
func (s *stream) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), feedTime)
	defer cancel()
	for _, c := range []*pgconn.PgConn{s.conn, s.gate} {
		if c != nil {
			_ = c.Close(ctx) // nothing is lost
		}
	}
}

// View implements loader.FeedStream. It also makes sure that the stream is that of the server which
// readers ask.
func (s *stream) View(ctx context.Context) (v loader.View, err error) {
	slot := quoted(s.feed.cfg.Slot)
	if !s.started {
		slot = quoted(s.temporary())
	}
	rows, err := ask(ctx, s.gate, `SELECT pg_current_snapshot()::text, pg_is_in_recovery(),
		(SELECT active_pid FROM pg_replication_slots WHERE slot_name = `+slot+`),
		(extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
		CASE WHEN pg_is_in_recovery() THEN 0 ELSE (SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)
			FROM pg_replication_slots WHERE slot_name = `+slot+`) END,
		CASE WHEN pg_is_in_recovery() THEN 0 ELSE pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0') END,
		CASE WHEN pg_is_in_recovery() THEN 0 ELSE pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') END`)
	if err != nil {
		return v, err
	}
	if len(rows) != 1 || len(rows[0]) != 7 {
		return v, errors.New("the server has answered in an unknown form")
	}
	row := rows[0]
	if row[1] == "t" {
		return v, errors.New("the server is a standby: loads and feed must ask the primary")
	}
	if row[2] != strconv.Itoa(int(s.conn.PID())) {
		return v, fmt.Errorf("slot %s is not in use by this stream any more: it was dropped, or statements go to "+
			"another server", s.feed.cfg.Slot)
	}
	var numbers [4]int64
	for i := range numbers {
		if numbers[i], err = strconv.ParseInt(row[3+i], 10, 64); err != nil && i != 1 { // Kept may not be known
			return v, err
		}
	}
	now, err := parseSnapshot(row[0])
	return loader.View{
		Snapshot: view{now, s.past}, Now: time.UnixMicro(numbers[0]), Kept: numbers[1],
		End: loader.Position(numbers[2]), Inserted: loader.Position(numbers[3]), // ahead with synchronous_commit = off
	}, err
}

// Nudge implements loader.FeedStream. The log is written up to the middle of a record while a
// transaction is open and nothing else commits.
func (s *stream) Nudge(ctx context.Context) error {
	_, err := ask(ctx, s.gate, "BEGIN; SET LOCAL synchronous_commit = local; "+
		"SELECT pg_logical_emit_message(true, "+quoted(messagePrefix+".nudge")+", ''); COMMIT")
	return err
}

// view implements loader.Snapshot.
type view struct{ now, past Snapshot }

func (v view) Sees(t *loader.Transaction) bool { return t.ID == 0 || v.now.Sees(uint32(t.ID)) }
func (v view) SeesPast() bool                  { return v.now.Covers(v.past) }
func (v view) Outlives(earlier loader.Snapshot) bool {
	was, ok := earlier.(view)
	return ok && v.now.After(was.now)
}

// Broken implements loader.FeedStream.
func (s *stream) Broken(ctx context.Context) (why string, err error) {
	now, err := s.feed.check(ctx, s.gate)
	if err == nil && now != s.catalog {
		s.catalog, why = now, catalogChanged
		s.feed.catalog.Store(now)
	}
	return why, err
}
