package postgres

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cachesidecar/cachesidecar/loader"
)

// The messages of pgoutput, protocol 1 (PostgreSQL documentation, "Logical Replication Message
// Formats"). Only what names changed keys is kept; no value of another column leaves this file.

// decoder makes transactions of messages.
type decoder struct {
	tables    map[table]*mapping
	messages  map[string]bool // the namespaces that a message may name
	encoding  string          // of the database, in which messages come
	relations map[uint32]*relation
	open      *loader.Transaction // nil: outside of transactions
}

// relation is a table that the server has described.
type relation struct {
	table   *mapping // nil: it is not mapped
	columns []int    // of the key's parts: their places in a row
}

func newDecoder(tables map[table]*mapping, messages []string) *decoder {
	d := &decoder{tables: tables, messages: map[string]bool{}, relations: map[uint32]*relation{}}
	for _, m := range messages {
		d.messages[m] = true
	}
	return d
}

// next takes one message. It returns a transaction if the message ends it.
func (d *decoder) next(r *fields) (*loader.Transaction, error) {
	kind := r.byte()
	var ended *loader.Transaction
	var err error
	switch kind {
	case 'B':
		r.skip(8 + 8)
		if d.open != nil {
			return nil, errors.New("a transaction begins within another one")
		}
		d.open = &loader.Transaction{ID: uint64(r.uint32())}
	case 'C':
		r.skip(1 + 8)
		end, at := loader.Position(r.uint64()), r.uint64()
		if d.open == nil {
			return nil, errors.New("a transaction ends that has not begun")
		}
		ended, d.open = d.open, nil
		ended.End, ended.Committed = end, serverTime(at)
	case 'R':
		err = d.relation(r)
	case 'I', 'U', 'D':
		err = d.row(kind, r)
	case 'T':
		err = d.truncated(r)
	case 'M':
		ended, err = d.message(r)
	case 'Y', 'O': // types, and where a change came from
		return nil, nil
	default:
		return nil, fmt.Errorf("an unknown message %q", kind)
	}
	if err == nil && r.short {
		err = fmt.Errorf("a message %q is cut short", kind)
	}
	if err == nil && kind != 'B' && kind != 'C' && kind != 'R' && kind != 'M' && d.open == nil {
		err = fmt.Errorf("a message %q outside of a transaction", kind)
	}
	if err != nil {
		return nil, err
	}
	return ended, nil
}

// serverTime reads the microseconds since 2000.
func serverTime(us uint64) time.Time {
	return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(us) * time.Microsecond)
}

const (
	maxColumns   = 1600     // PostgreSQL's limit
	maxRelations = 1 << 16  // tables that a stream describes
	maxName      = 1024     // of a schema, table or column; PostgreSQL's are shorter
	maxContent   = 4 * 1024 // of a message, in the encoding of the database: a longer one names no key
)

// unmapped is any table that is not in the settings.
var unmapped = &relation{}

func (d *decoder) relation(r *fields) error {
	oid, schema, name := r.uint32(), r.text(), r.text()
	r.skip(1) // the identity
	n := int(r.uint16())
	if n > maxColumns {
		return fmt.Errorf("table %s.%s has %d columns", schema, name, n)
	}
	var columns []string
	for range n {
		r.skip(1)
		columns = append(columns, r.text())
		r.skip(4 + 4)
	}
	if r.short {
		return nil // next reports it
	}
	if _, known := d.relations[oid]; !known && len(d.relations) == maxRelations {
		return fmt.Errorf("%w: rows of more than %d tables came in one stream: leave tables out of the publication",
			loader.ErrGap, maxRelations)
	}
	rel := unmapped
	if mapped := d.tables[table{schema, name}]; mapped != nil {
		rel = &relation{table: mapped}
		var err error
		if rel.columns, err = rel.table.places(columns); err != nil {
			return fmt.Errorf("table %s.%s: %w", schema, name, err)
		}
	}
	d.relations[oid] = rel
	return nil
}

// row notes the keys of a changed row: the old one, if the key has changed or the row has gone, and
// the new one.
func (d *decoder) row(kind byte, r *fields) error {
	rel := d.relations[r.uint32()]
	switch {
	case r.short:
		return nil
	case rel == nil:
		return errors.New("a row of a table that was not described")
	case rel.table == nil || d.open == nil:
		return nil
	}
	d.open.Rows++
	if c := d.open.Changed[rel.table.namespace]; c != nil && c.Flush != "" {
		r.skip(r.left())
		return nil
	}
	var old []value
	for !r.short && r.left() > 0 {
		part := r.byte()
		if part != 'K' && part != 'O' && part != 'N' {
			return fmt.Errorf("a row with a part %q", part)
		}
		values := r.tuple(rel.columns, old)
		texts, null, unsent := textsOf(values)
		switch {
		case r.short:
		case unsent || part == 'K' && null:
			// No column of an identity is NULL: one that is NULL in an identity is outside of it.
			d.open.Flush(rel.table.namespace, "a row came without its key")
		case !null:
			if key := rel.table.key(texts); kindOfKey(key) {
				d.open.Delete(rel.table.namespace, key)
			}
		}
		old = values
	}
	return nil
}

func (d *decoder) truncated(r *fields) error {
	n := r.uint32()
	r.skip(1)
	for ; n > 0 && !r.short; n-- {
		rel := d.relations[r.uint32()]
		if rel != nil && rel.table != nil && d.open != nil {
			d.open.Rows++
			d.open.Flush(rel.table.namespace, "a table was truncated")
		}
	}
	return nil
}

// messagePrefix is that of the messages that are for this product.
const messagePrefix = "cachesidecar"

// message takes a message of pg_logical_emit_message. One outside of transactions is a transaction
// of its own.
func (d *decoder) message(r *fields) (*loader.Transaction, error) {
	transactional := r.byte()&1 != 0
	at, prefix := loader.Position(r.uint64()), r.text()
	content := r.begin(int(r.uint32()), maxContent)
	switch {
	case r.short:
		return nil, nil // next reports it
	case transactional && d.open == nil: // it would count as visible
		return nil, errors.New("a message of a transaction outside of one")
	case prefix != messagePrefix:
		return nil, nil
	}
	to := d.open
	if !transactional {
		to = &loader.Transaction{End: at}
	}
	to.Rows++
	verb, rest, _ := strings.Cut(string(content), " ")
	namespace, key, hasKey := strings.Cut(rest, " ")
	switch {
	case !d.messages[namespace]:
	case verb == "delete" && hasKey && d.encoding != utf8Name && !isASCII(key): // which key, Go cannot tell
		to.Flush(namespace, "a message names a key in the encoding of the database")
	case verb == "delete" && hasKey && kindOfKey(key):
		to.Delete(namespace, key)
	case verb == "flush" && !hasKey:
		to.Flush(namespace, "a message asked for it")
	}
	if transactional {
		return nil, nil
	}
	return to, nil
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

// kindOfKey reports whether a text can be a key.
func kindOfKey(key string) bool { return key != "" && len(key) <= maxKey }

const maxKey = 1024

// fields reads the fields of a message. After the end everything is zero, and short is set.
type fields struct {
	rest   []byte // what has been read of it
	unread *unread
	short  bool
}

// unread is what has not been read of a message.
type unread struct {
	n      int                // bytes
	read   func([]byte) error // fills a slice
	window []byte             // for what is read
	err    error              // of read
}

// messageWindow is how much of a message is in memory, in bytes. No field that is not cut is longer.
const messageWindow = 16 << 10

// left returns how many bytes of the message follow.
func (fs *fields) left() int {
	if fs.unread == nil {
		return len(fs.rest)
	}
	return len(fs.rest) + fs.unread.n
}

// fill reads on, as far as there is room beside the rest.
func (fs *fields) fill() {
	u := fs.unread
	if u == nil || u.n == 0 || u.err != nil {
		return
	}
	if u.window == nil {
		u.window = make([]byte, messageWindow)
	}
	have := copy(u.window, fs.rest)
	n := min(u.n, len(u.window)-have)
	if u.err = u.read(u.window[have : have+n]); u.err == nil {
		u.n -= n
		fs.rest = u.window[:have+n]
	}
}

// bytes returns the next n bytes, until the next call.
func (fs *fields) bytes(n int) []byte {
	if n > len(fs.rest) {
		fs.fill()
	}
	if n < 0 || n > len(fs.rest) {
		fs.short, fs.rest = true, nil
		return nil
	}
	b := fs.rest[:n]
	fs.rest = fs.rest[n:]
	return b
}

// skip passes over n bytes.
func (fs *fields) skip(n int) {
	for n > len(fs.rest) && fs.left() >= n && (fs.unread == nil || fs.unread.err == nil) {
		n -= len(fs.rest)
		fs.rest = nil
		fs.fill()
	}
	fs.bytes(n)
}

// begin returns what n bytes begin with, up to a number of bytes and until the next call, and passes over the others.
func (fs *fields) begin(n, most int) []byte {
	if n > most {
		b := bytes.Clone(fs.bytes(most))
		fs.skip(n - most)
		return b
	}
	return fs.bytes(n)
}

func (fs *fields) byte() byte {
	if b := fs.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (fs *fields) uint16() uint16 {
	if b := fs.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (fs *fields) uint32() uint32 {
	if b := fs.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (fs *fields) uint64() uint64 {
	if b := fs.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// text returns what comes before a zero, up to maxName bytes.
func (fs *fields) text() (s string) {
	for fs.left() > 0 {
		if len(fs.rest) == 0 {
			if fs.fill(); len(fs.rest) == 0 {
				break
			}
		}
		part, _, ended := bytes.Cut(fs.rest, []byte{0})
		s += string(part[:min(len(part), maxName-len(s))])
		fs.skip(len(part))
		if ended {
			fs.skip(1)
			return s
		}
	}
	fs.bytes(-1)
	return ""
}

// value is a value of a row.
type value struct {
	kind byte // 't': the text; 'b': the same; 'n': NULL; 'u': not sent, since it is unchanged and stored apart
	text string
}

// tuple reads a row, and returns the values of some columns, in their order. One that was not sent is
// that of the old row, if there is one.
func (fs *fields) tuple(columns []int, old []value) []value {
	n := int(fs.uint16())
	values := make([]value, len(columns))
	for i := range n {
		v := value{kind: fs.byte()}
		var text []byte
		switch v.kind {
		case 'n', 'u':
		case 't', 'b':
			if n := int(fs.uint32()); slices.Contains(columns, i) {
				text = fs.begin(n, maxKey+1) // as part of a key it is as wrong as the whole
			} else {
				fs.skip(n)
			}
		default:
			fs.bytes(-1)
		}
		if fs.short {
			return nil
		}
		for j, c := range columns {
			switch {
			case c != i:
			case v.kind == 'u' && old != nil:
				values[j] = old[j]
			default:
				values[j] = value{v.kind, string(text)}
			}
		}
	}
	for _, c := range columns {
		if c >= n {
			fs.bytes(-1)
		}
	}
	return values
}

// textsOf returns the texts of values, and whether one of them is NULL or was not sent.
func textsOf(values []value) (texts []string, null, unsent bool) {
	for _, v := range values {
		texts = append(texts, v.text)
		null, unsent = null || v.kind == 'n', unsent || v.kind == 'u'
	}
	return texts, null, unsent
}
