package postgres

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
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

	gap     loader.Gap // why the slot was made
	past    Snapshot   // of the transactions that are not in a slot that was made
	catalog string     // a digest
	server  server
	started bool
	unread  unread

	confirmed atomic.Uint64 // what is before it has been dealt with
	forgotten atomic.Uint64 // the slot need not keep what is before it
	received  loader.Position
	told      time.Time // when the server was told of these positions
	asked     time.Time // when it has asked for them last
}

const catalogChanged = "the publication, a table of it or a column has changed"

// statusEvery is how often the server is told the position, at least.
const statusEvery = time.Second

// Stream implements loader.Feed.
func (f *Feed) Stream(ctx context.Context, gap loader.Gap, from loader.Checkpoint) (_ loader.FeedStream, err error) {
	s := &stream{feed: f, decoder: newDecoder(f.tables, f.cfg.Messages), gap: gap}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.gate, err = f.connect(ctx, false); err != nil {
		return nil, err
	}
	if s.catalog, err = f.check(ctx, s.gate); err != nil {
		if errors.Is(err, loader.ErrFeed) { // hosts that do not know of it have the gap too
			s.gap = "the server did not fit the settings"
			_ = s.findSlot(ctx, mark{}) // the error that is returned tells more
		}
		return nil, err
	}
	if s.conn, err = f.connect(ctx, true); err != nil {
		return nil, err
	}
	s.decoder.encoding = s.conn.ParameterStatus("server_encoding")
	if s.server, err = identify(ctx, s.conn); err != nil {
		return nil, err
	}
	known := parseMark(from)
	s.gap = cmp.Or(s.gap, s.differs(known)) // while this host followed nothing
	if err := s.findSlot(ctx, known); err != nil {
		return nil, err
	}
	if s.gap != "" {
		if err := s.makeSlot(ctx); err != nil {
			return nil, err
		}
		return s, nil
	}
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Gap implements loader.FeedStream.
func (st *stream) Gap() loader.Gap { return st.gap }

// Checkpoint implements loader.FeedStream.
func (st *stream) Checkpoint() loader.Checkpoint {
	return mark{st.catalog, st.server.id, loader.Position(st.confirmed.Load())}.checkpoint()
}

// temporary is the name of the slot that is there until everything from before it was dropped. It
// ends with the connection: if this host ends before, the next one has a gap too.
func (st *stream) temporary() string {
	return fmt.Sprintf("%.50s_%d", st.feed.cfg.Slot, st.conn.PID())
}

// start begins the stream where the slot was confirmed.
func (st *stream) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, feedTime)
	defer cancel()
	timeoutConnBelow(st.conn.Conn()).messages.beginStream()
	st.conn.Frontend().Send(&pgproto3.Query{String: "START_REPLICATION SLOT " + identifier(st.feed.cfg.Slot) +
		" LOGICAL 0/0 (proto_version '1', messages 'true', publication_names " +
		quoted(identifier(st.feed.cfg.Publication)) + ")"})
	if err := st.conn.Frontend().Flush(); err != nil {
		return err
	}
	for {
		m, err := st.conn.ReceiveMessage(ctx)
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *pgproto3.CopyBothResponse:
			st.started = true
			return st.unmoved(ctx)
		case *pgproto3.ErrorResponse:
			return streamError(m)
		}
	}
}

// Receive implements loader.FeedStream. It tells the server the position.
func (st *stream) Receive(ctx context.Context) (*loader.Transaction, error) {
	conn := st.conn.Conn()
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })()
	for {
		if err := st.KeepAlive(); err != nil {
			return nil, err
		}
		kind, message, err := st.nextMessage(ctx)
		if err != nil || kind == 0 {
			return nil, err
		}
		var t *loader.Transaction
		switch kind {
		case 'd':
			t, err = st.takeMessage(message)
		case 'E':
			err = st.readError(ctx, message)
		case 'c':
			err = errors.New("the server has ended the stream")
		}
		message.skip(message.left())
		if err = cmp.Or(message.unread.err, err); err != nil || t != nil {
			return t, err
		}
	}
}

// nextMessage reads the head of the next message, if one begins soon; else kind is zero.
func (st *stream) nextMessage(ctx context.Context) (kind byte, message *fields, err error) {
	var head [5]byte
	n, err := st.read(ctx, head[:])
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
		return 0, nil, nil
	}
	more := func(b []byte) error { return st.readOn(ctx, b) }
	if err == nil {
		err = more(head[n:])
	}
	if err != nil {
		return 0, nil, err
	}
	st.unread = unread{n: int(binary.BigEndian.Uint32(head[1:])) - 4, read: more, window: st.unread.window}
	return head[0], &fields{unread: &st.unread}, nil
}

// readError returns the error that a message brings.
func (st *stream) readError(ctx context.Context, message *fields) error {
	b := make([]byte, message.left()) // up to maxOther
	if err := st.readOn(ctx, b); err != nil {
		return err
	}
	message.unread.n = 0
	m := &pgproto3.ErrorResponse{}
	if err := m.Decode(b); err != nil {
		return err
	}
	return st.feed.failed.count(streamError(m), st.forgotten.Load())
}

// read reads what comes within half of statusEvery.
func (st *stream) read(ctx context.Context, b []byte) (int, error) {
	conn := st.conn.Conn()
	messages := timeoutConnBelow(conn).messages
	if messages.stream.Buffered() == 0 { // what has come needs no deadline: to set one takes longer than to read it
		if err := conn.SetReadDeadline(time.Now().Add(statusEvery / 2)); err != nil {
			return 0, err
		}
		if ctx.Err() != nil { // it may have ended before the deadline was set
			return 0, ctx.Err()
		}
	}
	return messages.Read(b)
}

// readOn fills b with what follows in a message, and tells the server meanwhile that this host lives.
func (st *stream) readOn(ctx context.Context, b []byte) error {
	for len(b) > 0 {
		if err := st.KeepAlive(); err != nil {
			return err
		}
		n, err := st.read(ctx, b)
		if b = b[n:]; err != nil && (n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil) {
			return err
		}
	}
	return nil
}

// undefinedObject is the SQLSTATE of what is not there.
const undefinedObject = "42704"

// streamError returns the error of a stream. The server reads its log with the publications of then: if
// the feed's was not there when a row changed, it fails at that place each time.
func streamError(m *pgproto3.ErrorResponse) error {
	err := pgconn.ErrorResponseToPgError(m)
	if m.Code == undefinedObject {
		return fmt.Errorf("%w: the publication was not there, or had another name, when a row changed: %w",
			loader.ErrGap, err)
	}
	if noUTF8(err) { // it would come again: only a stream with a gap gets past it
		return fmt.Errorf("%w: a row has a text that has no form in UTF-8: mend the row, or leave its "+
			"column out of the publication (%s)", loader.ErrFeed, m.Code) // its words have bytes of the row
	}
	return err
}

// failures counts how often the server has failed to go on from a place of its log.
type failures struct {
	from  uint64
	times int
}

// maxFailures is how often the server is asked to go on from the same place.
const maxFailures = 3

// operatorIntervention is the class of SQLSTATEs of a server that ends, or whose operator ends the connection.
const operatorIntervention = "57"

// count notes an error of a stream that began at a place, and returns it. An error that comes each time is a gap:
// a row that has no form of up to 1 GB, for example, stays in the log.
func (fails *failures) count(err error, from uint64) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || strings.HasPrefix(pg.Code, operatorIntervention) {
		return err
	}
	if fails.from != from {
		*fails = failures{from: from}
	}
	if fails.times++; fails.times < maxFailures {
		return err
	}
	return fmt.Errorf("%w: the server cannot read on in its log: %w", loader.ErrGap, err)
}

// takeMessage takes a message of the stream.
func (st *stream) takeMessage(f *fields) (*loader.Transaction, error) {
	switch kind := f.byte(); kind {
	case 'w':
		f.skip(8)
		st.received = max(st.received, loader.Position(f.uint64()))
		f.skip(8)
		if f.short {
			return nil, errors.New("a message of the stream is cut short")
		}
		return st.decoder.next(f)
	case 'k':
		end := loader.Position(f.uint64())
		f.skip(8)
		ask := f.byte() != 0
		if f.short {
			return nil, errors.New("a message of the stream is cut short")
		}
		st.received = max(st.received, end)
		if st.decoder.open == nil {
			return &loader.Transaction{End: end}, st.answer(ask) // nothing has changed up to there
		}
		return nil, st.answer(ask)
	default:
		return nil, fmt.Errorf("an unknown message %q of the stream", kind)
	}
}

// answer tells the server the position if it has asked for it. A server that ends asks again and again, until
// all is forgotten.
func (st *stream) answer(asked bool) error {
	if !asked {
		return nil
	}
	if time.Since(st.asked) < statusEvery/10 {
		return errors.New("the server ends")
	}
	st.asked = time.Now()
	return st.tell()
}

// Confirm implements loader.FeedStream. The position never goes back: the server may name one before
// the last commit, or before the slot's own when it reads its log again, and not each release ignores it.
func (st *stream) Confirm(at loader.Position) {
	if uint64(at) > st.confirmed.Load() {
		st.confirmed.Store(uint64(at))
	}
}

// Forget implements loader.FeedStream.
func (st *stream) Forget(known loader.Checkpoint) {
	if at := parseMark(known).at; uint64(at) > st.forgotten.Load() {
		st.forgotten.Store(uint64(at))
	}
}

// KeepAlive implements loader.FeedStream.
func (st *stream) KeepAlive() error {
	if time.Since(st.told) < statusEvery {
		return nil
	}
	return st.tell()
}

// tell tells the server the position.
func (st *stream) tell() error {
	flushed, applied := st.forgotten.Load(), st.confirmed.Load() // as pg_stat_replication calls them
	b := append(make([]byte, 0, 34), 'r')
	b = binary.BigEndian.AppendUint64(b, max(uint64(st.received), flushed, applied))
	b = binary.BigEndian.AppendUint64(b, flushed)
	b = binary.BigEndian.AppendUint64(b, applied)
	b = binary.BigEndian.AppendUint64(b, uint64(time.Since(serverTime(0)).Microseconds()))
	st.conn.Frontend().Send(&pgproto3.CopyData{Data: append(b, 0)})
	st.told = time.Now()
	return st.conn.Frontend().Flush()
}

// GiveUp implements loader.FeedStream: the slot is dropped. The server notices the end of the stream in
// a moment.
func (st *stream) GiveUp(ctx context.Context) (err error) {
	_ = st.conn.Close(ctx) // nothing is lost
	for pause := time.Millisecond; ; pause *= 2 {
		if _, err = ask(ctx, st.gate, 0, "SELECT pg_drop_replication_slot("+quoted(st.feed.cfg.Slot)+")"); err == nil {
			return nil
		}
		if !kv.Sleep(ctx, pause) {
			return err
		}
	}
}

// Close ends the connections.
func (st *stream) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), feedTime)
	defer cancel()
	for _, c := range []*pgconn.PgConn{st.conn, st.gate} {
		if c != nil {
			_ = c.Close(ctx) // nothing is lost
		}
	}
}

// View implements loader.FeedStream. It also makes sure that the stream is that of the server which
// readers ask.
func (st *stream) View(ctx context.Context) (v loader.View, err error) {
	slot := quoted(st.feed.cfg.Slot)
	if !st.started {
		slot = quoted(st.temporary())
	}
	row, err := one(ask(ctx, st.gate, 8, `SELECT pg_current_snapshot()::text, pg_is_in_recovery(),
		(SELECT active_pid FROM pg_replication_slots WHERE slot_name = `+slot+`),
		(extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
		CASE WHEN pg_is_in_recovery() THEN 0 ELSE (SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)
			FROM pg_replication_slots WHERE slot_name = `+slot+`) END,
		CASE WHEN pg_is_in_recovery() THEN 0 ELSE pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0') END,
		CASE WHEN pg_is_in_recovery() THEN 0 ELSE pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') END,
		age(pg_snapshot_xmax(pg_current_snapshot())::xid)`))
	if err != nil {
		return v, err
	}
	if row[1] == "t" {
		return v, errors.New("the server is a standby: loads and feed must ask the primary")
	}
	if row[2] != strconv.Itoa(int(st.conn.PID())) {
		return v, fmt.Errorf("slot %s is not in use by this stream any more: it was dropped, or statements go to "+
			"another server", st.feed.cfg.Slot)
	}
	var numbers [5]int64
	for i := range numbers {
		if numbers[i], err = strconv.ParseInt(row[3+i], 10, 64); err != nil && i != 1 { // Kept may not be known
			return v, err
		}
	}
	now, err := parseSnapshot(row[0])
	now.Next = now.Max + uint64(numbers[4])
	return loader.View{
		Snapshot: view{now, st.past}, Now: time.UnixMicro(numbers[0]), Kept: numbers[1],
		End: loader.Position(numbers[2]), Inserted: loader.Position(numbers[3]), // ahead with synchronous_commit = off
	}, err
}

// Nudge implements loader.FeedStream. The log is written up to the middle of a record while a
// transaction is open and nothing else commits.
func (st *stream) Nudge(ctx context.Context) error {
	_, err := ask(ctx, st.gate, 0, "BEGIN; SET LOCAL synchronous_commit = local; "+
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

// FindGap implements loader.FeedStream.
func (st *stream) FindGap(ctx context.Context) (gap loader.Gap, err error) {
	now, err := st.feed.check(ctx, st.gate)
	if err == nil && now != st.catalog {
		st.catalog, gap = now, catalogChanged
	}
	return gap, err
}
