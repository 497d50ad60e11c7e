package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// inParts returns the fields of a message of which a window alone is in memory.
func inParts(message []byte) *fields {
	r := bytes.NewReader(message)
	return &fields{unread: &unread{n: len(message), read: func(b []byte) error { return testenv.ErrorOf(io.ReadFull(r, b)) }}}
}

// TestDecoderInParts checks that long messages name the same keys as if they were in memory, wherever their window
// ends, and that their window does not grow.
func TestDecoderInParts(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	for about := messageWindow - 80; about < messageWindow+10; about++ {
		for name, m := range map[string][]byte{
			"another column":  encoded('U', uint32(2), row('O', "eu", x(about), "8"), row('N', "us", x(3*about), "9")),
			"a key":           encoded('I', uint32(2), row('N', x(about), "b", "9"), row('N', "eu", "b", "9")),
			"a key that fits": encoded('I', uint32(2), row('N', x(900), x(about-950), x(122))),
			"a table":         relates(4, "public", "users", append(slices.Repeat([]string{x(63)}, 1000), x(about), "id")...),
			"a prefix":        told(1, 90, x(about), "flush users"),
			"a content":       told(1, 90, "cachesidecar", "delete pages "+x(about)),
			"tables":          encoded('T', uint32(about+2), '\x00', bytes.Repeat([]byte{0, 0, 0, 3}, about), uint32(1), uint32(2)),
		} {
			var got [2]string
			for i := range got {
				d := testDecoder()
				for _, m := range [][]byte{begins, users, parts, others} {
					testenv.Must(t, testenv.ErrorOf(d.next(&fields{rest: m})))
				}
				f := &fields{rest: m}
				if i == 1 {
					f = inParts(m)
				}
				_, err := d.next(f)
				got[i] = fmt.Sprint(err, f.left(), text(d.open))
				if r := d.relations[4]; r != nil {
					got[i] += fmt.Sprint(r.columns)
				}
				if i == 1 && len(f.unread.window) > messageWindow {
					t.Fatalf("%s: a window of %d bytes", name, len(f.unread.window))
				}
			}
			if got[0] != got[1] {
				t.Fatalf("%s of %d bytes: in memory %q, in parts %q", name, about, got[0], got[1])
			}
		}
	}
}

// TestDecoderInPartsCut checks that a connection that ends in a message is an error, in whichever field.
func TestDecoderInPartsCut(t *testing.T) {
	m := encoded('I', uint32(2), row('N', "eu", strings.Repeat("x", 3*messageWindow), "9"))
	for _, n := range []int{0, 1, 5, 9, 100, messageWindow, 2*messageWindow + 7, len(m) - 1} {
		d := testDecoder()
		testenv.Must(t, testenv.ErrorOf(d.next(&fields{rest: parts})))
		testenv.Must(t, testenv.ErrorOf(d.next(&fields{rest: begins})))
		f := inParts(m[:n])
		f.unread.n = len(m)
		if _, err := d.next(f); err == nil || f.unread.err == nil || len(d.open.Changed) > 0 {
			t.Errorf("after %d bytes: %v, %v, %q", n, err, f.unread.err, text(d.open))
		}
	}
}

// TestRelations checks that tables without end are a gap, and that one which is described again is not counted.
func TestRelations(t *testing.T) {
	d := testDecoder()
	for oid := range uint32(maxRelations) {
		testenv.Must(t, testenv.ErrorOf(d.next(&fields{rest: relates(oid, "public", "others")})))
	}
	testenv.Must(t, testenv.ErrorOf(d.next(&fields{rest: users})))
	if _, err := d.next(&fields{rest: relates(maxRelations, "public", "others")}); !errors.Is(err, loader.ErrGap) {
		t.Errorf("one more table: %v", err)
	}
}
