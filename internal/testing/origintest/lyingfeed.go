package origintest

import (
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// FeedLies are the ways in which LyingFeed lies, with what it answers, or streams.
var FeedLies = []string{
	"no columns", "a long row", "rows without end", "open transactions", "notices",
	"a long message", "tables", "keys", "flushes", "unseen",
}

// LyingFeed starts a PostgreSQL that fits a feed with the table public.t, of the key {id}, and lies to it. It returns
// the address.
func LyingFeed(t testing.TB, lie string) string {
	t.Helper()
	testenv.ReadsClock(t, liesEvery, "a server that never pauses for long, against real timeouts")
	s := &feedLiar{lie: lie}
	return serve(t, func(c net.Conn, _ <-chan struct{}) { s.talk(&feedSession{feedLiar: s, liar: liar{Conn: c}}) })
}

// feedLiar is a server; its last stream has a process id that the others ask for.
type feedLiar struct {
	lie    string
	pids   atomic.Uint32
	stream atomic.Uint32
}

// feedSession is one connection.
type feedSession struct {
	*feedLiar
	liar
	pid  uint32
	said int // bytes since the last rest
}

// rest has a session send up to 50 MB a second: more would take the processors of the test.
func (s *feedSession) rest(n int) {
	if s.said += n; s.said >= 256<<10 {
		s.said = 0
		time.Sleep(liesEvery)
	}
}

func (s *feedSession) say(parts ...string) bool {
	for _, p := range parts {
		s.rest(len(p))
	}
	return s.liar.say(parts...)
}

// liesEvery is the rest after 256 KiB.
const liesEvery = 5 * time.Millisecond

// forever repeats what until the client goes.
func (s *feedSession) forever(what string) {
	for block := strings.Repeat(what, max(1, 64<<10/len(what))); s.say(block); {
	}
}

// talk logs a client in, and answers its statements.
func (s *feedLiar) talk(c *feedSession) {
	b := pgproto3.NewBackend(c, c)
	start, err := b.ReceiveStartupMessage()
	m, ok := start.(*pgproto3.StartupMessage)
	if err != nil || !ok {
		return
	}
	if c.pid = s.pids.Add(1); m.Parameters["replication"] != "" {
		s.stream.Store(c.pid)
	}
	b.Send(&pgproto3.AuthenticationOk{})
	b.Send(&pgproto3.BackendKeyData{ProcessID: c.pid, SecretKey: []byte{1, 2, 3, 4}})
	b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	for b.Flush() == nil {
		m, err := b.Receive()
		if err != nil {
			return
		}
		q, ok := m.(*pgproto3.Query)
		if !ok {
			return
		}
		if strings.HasPrefix(q.String, "START_REPLICATION") {
			b.Send(&pgproto3.CopyBothResponse{})
			if b.Flush() == nil {
				c.lieOn()
			}
			return
		}
		if !c.answer(b, q.String) {
			return
		}
		b.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	}
}

// feedAnswers are what a server that fits says to the statements that have a text in them; the first one counts.
var feedAnswers = []struct{ in, answer string }{
	{"server_version_num", "150004|logical|f|t|10240||feed"},
	{"FROM pg_publication WHERE", "t|t|digest"},
	{"pg_publication_tables", "0|id|t||t||t|t|f"},
	{"collisdeterministic", "0|id|text|text|f|t|-1"},
	{"coalesce(plugin", "pgoutput|t||reserved|1000"},
	{"IDENTIFY_SYSTEM", "7000|1|0/1000000|db"},
	{"CREATE_REPLICATION_SLOT", "s|0/10|snapshot|pgoutput"},
	{"SET TRANSACTION SNAPSHOT", "3:4:"},
	{"max_replication_slots", "9"},
	{"plugin = 'pgoutput' AND database", ""},
	{"", "1000"},
}

// answer answers a statement, and reports whether another one may come.
func (s *feedSession) answer(b *pgproto3.Backend, sql string) bool {
	text := ""
	for _, a := range feedAnswers {
		if strings.Contains(sql, a.in) {
			text = a.answer
			break
		}
	}
	if strings.Contains(sql, "pg_current_snapshot()::text, pg_is") {
		most, open := 1<<30, ""
		if s.lie == "unseen" {
			most = 5
		}
		if s.lie == "open transactions" {
			open = strings.Repeat("4,", 1<<20) + "4"
		}
		text = fmt.Sprintf("3:%d:%s|f|%d|1|1000|20000000|20000000|1", most, open, s.stream.Load())
	}
	b.Send(&pgproto3.RowDescription{})
	var row [][]byte
	for part := range strings.SplitSeq(text, "|") {
		row = append(row, []byte(part))
	}
	slot := strings.Contains(sql, "coalesce(plugin")
	switch {
	case s.lie == "no columns" && slot:
		row = nil
	case s.lie == "a row" && slot: // it fits
		row = append(row, make([]byte, 10_000))
	case s.lie == "a long row" && slot:
		row[0] = make([]byte, 8<<20)
	case s.lie == "rows without end" && slot:
		if b.Flush() == nil {
			s.forever(message('D', "\x00\x00"))
		}
		return false
	}
	if text != "" {
		b.Send(&pgproto3.DataRow{Values: row})
	}
	return true
}

// wal returns a message of the stream.
func wal(parts ...any) string {
	b := []byte("w" + strings.Repeat("\x00", 24))
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			b = append(b, p...)
		default:
			b, _ = binary.Append(b, binary.BigEndian, p) // integers
		}
	}
	return message('d', string(b))
}

// lieOn streams until the client goes, or has all.
func (s *feedSession) lieOn() {
	commit := wal("C\x00", uint64(30000000), uint64(30000000), uint64(0))
	begin := func(id int) string { return wal("B", uint64(0), uint64(0), uint32(id)) }
	table := func(oid int) string {
		return wal("R", uint32(oid), "public\x00t\x00d", uint16(1), "\x01id\x00", uint64(0))
	}
	insert := func(text string) string { return wal("I", uint32(1), "N", uint16(1), "t", uint32(len(text)), text) }
	if !s.say(table(1)) {
		return
	}
	switch s.lie {
	case "notices":
		s.forever(message('N', filler[:60_000]))
	case "a long message", "a long row of the log": // this one ends
		n := uint32(1 << 30)
		if s.lie == "a long row of the log" {
			n = 64 << 20
		}
		row := wal("I", uint32(1), "N", uint16(1), "t", n)
		row = "d" + string(binary.BigEndian.AppendUint32(nil, n+uint32(len(row))-1)) + row[5:]
		s.say(begin(9), row)
		for block := []byte(filler); n > 0; n -= uint32(len(block)) { // say would allocate it anew, and a test counts
			s.rest(len(block))
			if _, err := s.Write(block); err != nil {
				return
			}
		}
		s.say(insert("42"), commit)
		s.silent()
	case "tables":
		for oid := 2; s.say(table(oid)); oid++ {
		}
	case "keys": // a transaction without an end
		s.say(begin(9))
		for i := 0; s.say(insert(fmt.Sprint(i, filler[:1000]))); i++ {
		}
	case "flushes":
		for id := 10; s.say(begin(id), wal("T", uint32(1), "\x00", uint32(1)), commit); id++ {
		}
	case "unseen":
		for id := 10; s.say(begin(id), insert(fmt.Sprint(id)), commit); id++ {
		}
	default:
		s.forever(begin(9) + commit)
	}
}
