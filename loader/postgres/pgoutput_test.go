package postgres

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/loader"
)

// encoded returns a message of the stream: numbers in network order, texts with a zero behind, bytes
// as they are.
func encoded(parts ...any) (b []byte) {
	for _, p := range parts {
		switch p := p.(type) {
		case rune:
			b = append(b, byte(p))
		case string:
			b = append(append(b, p...), 0)
		case []byte:
			b = append(b, p...)
		default:
			b, _ = binary.Append(b, binary.BigEndian, p) // the tests give integers
		}
	}
	return b
}

// relates is the message that describes a table with some columns.
func relates(oid uint32, schema, name string, columns ...string) []byte {
	b := encoded('R', oid, schema, name, 'd', uint16(len(columns)))
	for _, c := range columns {
		b = append(b, encoded('\x01', c, uint32(25), uint32(0))...)
	}
	return b
}

// row is a part of a message of a row: N, O or K and its values. "NULL" and "TOAST" stand for values
// that are not sent.
func row(part rune, values ...string) []byte {
	b := encoded(part, uint16(len(values)))
	for _, v := range values {
		switch v {
		case "NULL":
			b = append(b, 'n')
		case "TOAST":
			b = append(b, 'u')
		default:
			b = append(b, encoded('t', uint32(len(v)), []byte(v))...)
		}
	}
	return b
}

// told is the message of pg_logical_emit_message.
func told(flags byte, at uint64, prefix, content string) []byte {
	return encoded('M', flags, at, prefix, uint32(len(content)), []byte(content))
}

var (
	begins = encoded('B', uint64(100), uint64(0), uint32(7))
	ends   = encoded('C', '\x00', uint64(100), uint64(120), uint64(86_400_000_000))
	users  = relates(1, "public", "users", "id", "name")
	parts  = relates(2, "public", "parts", "region", "body", "id")
	others = relates(3, "public", "others", "id")
)

func testDecoder() *decoder {
	return newDecoder(map[table]*mapping{
		{"public", "users"}: {namespace: "users", texts: []string{"", ""}, columns: []string{"id"}},
		{"public", "parts"}: {namespace: "parts", texts: []string{"", "/", ""}, columns: []string{"region", "id"}},
	}, []string{"users", "pages"})
}

// TestDecoder checks what a transaction has changed after some messages within it.
func TestDecoder(t *testing.T) {
	insert := func(oid uint32, values ...string) []byte { return encoded('I', oid, row('N', values...)) }
	long := strings.Repeat("k", maxKey+1)
	for name, tc := range map[string]struct {
		messages [][]byte
		rows     int
		want     string
	}{
		"nothing":             {},
		"an insertion":        {[][]byte{users, insert(1, "42", "a")}, 1, "users 42"},
		"a row twice":         {[][]byte{users, insert(1, "42", "a"), insert(1, "42", "b")}, 2, "users 42"},
		"an update":           {[][]byte{users, encoded('U', uint32(1), row('N', "42", "b"))}, 1, "users 42"},
		"a changed key":       {[][]byte{users, encoded('U', uint32(1), row('K', "42", "NULL"), row('N', "43", "b"))}, 1, "users 42,43"},
		"a deletion":          {[][]byte{users, encoded('D', uint32(1), row('O', "42", "b"))}, 1, "users 42"},
		"two columns":         {[][]byte{parts, insert(2, "eu", "TOAST", "9")}, 1, "parts eu/9"},
		"an empty key":        {[][]byte{users, insert(1, "", "a")}, 1, ""},
		"a long key":          {[][]byte{users, insert(1, long, "a")}, 1, ""},
		"NULL in a key":       {[][]byte{parts, insert(2, "eu", "b", "NULL")}, 1, ""},
		"a key that is apart": {[][]byte{parts, insert(2, "TOAST", "b", "9"), insert(2, "eu", "b", "9")}, 2, "parts: a row came without its key"},
		"a key that is apart and unchanged": {
			[][]byte{parts, encoded('U', uint32(2), row('K', "eu", "NULL", "9"), row('N', "TOAST", "b", "9"))}, 1, "parts eu/9",
		},
		"a key that is apart, and another part of it has changed": {
			[][]byte{parts, encoded('U', uint32(2), row('O', "eu", "b", "8"), row('N', "TOAST", "b", "9"))}, 1, "parts eu/8,eu/9",
		},
		"a key that is apart, and was NULL in part": {
			[][]byte{parts, encoded('U', uint32(2), row('O', "eu", "b", "NULL"), row('N', "TOAST", "b", "9"))}, 1, "parts eu/9",
		},
		"a key that the identity does not have": {
			[][]byte{parts, encoded('D', uint32(2), row('K', "eu", "NULL", "NULL"))}, 1, "parts: a row came without its key",
		},
		"another table": {[][]byte{others, insert(3, "1")}, 0, ""},
		"described again": {
			[][]byte{users, relates(1, "public", "users", "name", "id"), insert(1, "a", "42")}, 1, "users 42",
		},
		"truncated": {
			[][]byte{users, parts, others, encoded('T', uint32(3), '\x00', uint32(1), uint32(3), uint32(2))}, 2,
			"parts: a table was truncated; users: a table was truncated",
		},
		"messages": {
			[][]byte{told(1, 90, "cachesidecar", "delete pages a b"), told(1, 90, "cachesidecar", "flush users")}, 2,
			"pages a b; users: a message asked for it",
		},
		"messages of others": {
			[][]byte{
				told(1, 90, "cachesidecar", "flush parts"), told(1, 90, "cachesidecar", "delete parts 1"),
				told(1, 90, "cachesidecar", "drop users 1"), told(1, 90, "cachesidecar", "delete users"), told(1, 90, "cachesidecar", ""),
			}, 5, "",
		},
		"another prefix": {[][]byte{told(1, 90, "another", "flush users")}, 0, ""},
		"others":         {[][]byte{encoded('Y', uint32(1), "x", "y"), encoded('O', uint64(1), "x")}, 0, ""},
	} {
		d := testDecoder()
		var got *loader.Transaction
		for i, m := range slices.Concat([][]byte{begins}, tc.messages, [][]byte{ends}) {
			var err error
			if got, err = d.next(&fields{rest: m}); err != nil || (got != nil) != (i == len(tc.messages)+1) {
				t.Fatalf("%s: message %d: %v, %v", name, i, got, err)
			}
		}
		if text(got) != tc.want || got.Rows != tc.rows {
			t.Errorf("%s: %q, %d rows; want %q, %d", name, text(got), got.Rows, tc.want, tc.rows)
		}
		if got.ID != 7 || got.End != 120 || !got.Committed.Equal(time.Date(2000, 1, 2, 0, 0, 0, 0, time.UTC)) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestDecoderAtOnce checks that a message outside of transactions is one of its own, also between the
// messages of another.
func TestDecoderAtOnce(t *testing.T) {
	d := testDecoder()
	for _, m := range [][]byte{begins, users, encoded('I', uint32(1), row('N', "1", "a"))} {
		if got, err := d.next(&fields{rest: m}); got != nil || err != nil {
			t.Fatal(got, err)
		}
	}
	for range 2 {
		got, err := d.next(&fields{rest: told(0, 90, "cachesidecar", "delete users 2")})
		if err != nil || got == nil || text(got) != "users 2" || got.ID != 0 || got.End != 90 {
			t.Fatal(got, err)
		}
		if got, err = d.next(&fields{rest: ends}); d.open == nil && err == nil && text(got) != "users 1" {
			t.Error(text(got))
		}
	}
}

// TestDecoderRefuses checks that what no server sends is an error and no transaction.
func TestDecoderRefuses(t *testing.T) {
	inserted := encoded('I', uint32(1), row('N', "1", "a"))
	for name, tc := range map[string]struct {
		messages [][]byte
		want     string
	}{
		"an empty message":               {[][]byte{{}}, `an unknown message '\x00'`},
		"an unknown message":             {[][]byte{{'z'}}, "an unknown message 'z'"},
		"a transaction within one":       {[][]byte{begins, begins}, "begins within another"},
		"an end without a beginning":     {[][]byte{ends}, "ends that has not begun"},
		"an end that is cut":             {[][]byte{begins, ends[:20]}, "a message 'C' is cut short"},
		"a row outside":                  {[][]byte{users, inserted}, "a message 'I' outside of a transaction"},
		"a truncation outside":           {[][]byte{users, encoded('T', uint32(1), '\x00', uint32(1))}, "a message 'T' outside"},
		"a message outside":              {[][]byte{told(1, 90, "cachesidecar", "flush users")}, "outside of one"},
		"a message that is cut":          {[][]byte{told(0, 90, "cachesidecar", "flush users")[:30]}, "'M' is cut short"},
		"a row of an unknown table":      {[][]byte{begins, inserted}, "a table that was not described"},
		"a row with an unknown part":     {[][]byte{begins, users, encoded('I', uint32(1), row('X', "1", "a"))}, "a part 'X'"},
		"a row with an unknown value":    {[][]byte{begins, users, encoded('I', uint32(1), 'N', uint16(1), 'z')}, "cut short"},
		"a row without a column":         {[][]byte{begins, parts, encoded('I', uint32(2), row('N', "eu", "b"))}, "cut short"},
		"a row that is cut":              {[][]byte{begins, users, inserted[:len(inserted)-1]}, "cut short"},
		"a table without a column":       {[][]byte{relates(1, "public", "users", "name")}, "names column \"id\""},
		"a table with too many columns":  {[][]byte{encoded('R', uint32(1), "public", "users", 'd', uint16(1601))}, "has 1601 columns"},
		"a truncation of too few tables": {[][]byte{begins, encoded('T', uint32(1<<32-1), '\x00', uint32(1))}, "cut short"},
	} {
		d := testDecoder()
		for i, m := range tc.messages {
			got, err := d.next(&fields{rest: m})
			last := i == len(tc.messages)-1
			if got != nil || (err != nil) != last || last && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: message %d: %v, %v; want %q", name, i, got, err, tc.want)
			}
		}
	}
}

// conversation is one that a server could have: each message with its length before it.
func conversation() (b []byte) {
	for _, m := range [][]byte{
		begins, users, encoded('I', uint32(1), row('N', "1", "a")), encoded('U', uint32(1), row('K', "1", "NULL"), row('N', "2", "b")),
		parts, encoded('D', uint32(2), row('O', "eu", "TOAST", "9")), told(1, 90, "cachesidecar", "delete pages x"),
		encoded('Y', uint32(1), "x", "y"), encoded('T', uint32(1), '\x00', uint32(1)), ends,
		told(0, 130, "cachesidecar", "flush pages"), begins, others, encoded('O', uint64(1), "x"), ends,
	} {
		b = append(append(b, byte(len(m))), m...)
	}
	return b
}

// FuzzDecoder checks the decoder with any messages: it never panics, a transaction comes at the end of
// one that has begun, or with a message outside of transactions, it names keys of the namespaces of the
// feed alone, and what it has is no more than came. What the server cuts or joins differently is an
// error at most.
func FuzzDecoder(f *testing.F) {
	all := conversation()
	f.Add(all)
	f.Add(all[1+len(begins):])
	f.Add(slices.Concat(all, all))
	for i := 7; i < len(all); i += 29 {
		f.Add(slices.Concat(all[:i], all[i+1:])) // the rest is cut differently
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d := testDecoder()
		came, messages := len(b), 0
		for len(b) > 0 {
			n := min(int(b[0]), len(b)-1)
			m := slices.Clone(b[1 : 1+n])
			b = b[1+n:]
			messages++
			before, open := slices.Clone(m), d.open
			got, err := d.next(&fields{rest: m})
			if !bytes.Equal(m, before) {
				t.Fatalf("it has changed a message: %q", before)
			}
			if len(d.relations) > messages {
				t.Fatalf("%d tables of %d messages", len(d.relations), messages)
			}
			if err != nil {
				if got != nil {
					t.Fatalf("%v, and a transaction", err)
				}
				return // the stream ends
			}
			if got == nil {
				continue
			}
			alone := m[0] == 'M' && m[1]&1 == 0 && got.ID == 0 && got != open
			if !alone && (m[0] != 'C' || got != open || d.open != nil) {
				t.Fatalf("message %q has ended a transaction", m)
			}
			checkTransaction(t, got, came)
		}
	})
}

// checkTransaction checks a transaction that a number of bytes have brought.
func checkTransaction(t *testing.T, m *loader.Transaction, came int) {
	size := 0
	for namespace, c := range m.Changed {
		if namespace != "users" && namespace != "pages" && namespace != "parts" {
			t.Fatalf("namespace %q", namespace)
		}
		if len(c.Keys) == 0 && c.Flush == "" {
			t.Fatalf("namespace %s has not changed", namespace)
		}
		for key := range c.Keys {
			if size += len(key); !kindOfKey(key) {
				t.Fatalf("a key of %d bytes", len(key))
			}
		}
	}
	all := &loader.Transaction{}
	all.Join(m)
	if all.Size != m.Size || m.Rows > came || size > came {
		t.Fatalf("keys of %d bytes, %d noted of %d, %d rows, of %d bytes", size, m.Size, all.Size, m.Rows, came)
	}
}
