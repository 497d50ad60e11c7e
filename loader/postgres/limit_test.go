package postgres

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

func message(kind byte, length int) []byte {
	b := make([]byte, 5+length)
	b[0] = kind
	binary.BigEndian.PutUint32(b[1:], uint32(4+length))
	return b
}

func TestLimit(t *testing.T) {
	// 1000, 64 KiB, 1 KiB.
	row, notice, setting := message('D', 995), message('N', 65_531), message('S', 1019)
	for _, tc := range []struct {
		name   string
		answer []byte
		most   int
		want   bool
	}{
		{"rows", bytes.Repeat(row, 10), 10_000, true},
		{"one too many", bytes.Repeat(row, 11), 10_000, false},
		{"of a list", bytes.Repeat(row, 10_000), -1, true},
		{"stated alone", row[:5], 999, false},
		{"notices", bytes.Repeat(notice, 4)[:4*65_536-1], 0, true},
		{"notices too many", bytes.Repeat(notice, 5), 0, false},
		{"settings", bytes.Repeat(setting, 64), 0, true},
		{"settings too many", bytes.Repeat(setting, 65), 0, false},
		{"in a list", bytes.Repeat(notice, 5), -1, false},
		{"a length that is none", []byte{'D', 0, 0, 0, 3}, -1, false},
		{"a length beyond all", []byte{'T', 0xff, 0xff, 0xff, 0xff}, -1, false},
	} {
		for _, step := range []int{1, 7, len(tc.answer)} {
			if got := passes(tc.answer, tc.most, step) == nil; got != tc.want {
				t.Errorf("%s, by %d: %v, want %v", tc.name, step, got, tc.want)
			}
		}
	}
}

// A request resets the counts. A password does not, and settings are never reset.
func TestLimitPerRequest(t *testing.T) {
	l := &messageLimiter{w: new(bytes.Buffer), maxRows: 1000}
	row, settings := message('D', 995), bytes.Repeat(message('S', 1019), 63)
	write := func(kind byte) { _, _ = l.Write([]byte{kind}) }
	if write('B'); l.pass(row) != nil || l.pass(settings) != nil {
		t.Error("the first answer")
	}
	if write('B'); l.pass(row) != nil {
		t.Error("the second answer")
	}
	if write('p'); l.pass(row) == nil {
		t.Error("after a password")
	}
	if write('B'); l.pass(settings) == nil {
		t.Error("settings")
	}
}

// TestLimitOfStream checks that a reader of a stream gets heads and bodies one by one, of any length, and that
// what is no part of the stream is bounded. A refusal closes the connection.
func TestLimitOfStream(t *testing.T) {
	one, other := net.Pipe()
	defer other.Close()
	p := &timeoutConn{Conn: one}
	long := message('d', 2*maxOther)
	sent := slices.Concat(message('d', 10), message('d', 0), long, bytes.Repeat(message('N', 65_531), 5))
	l := &messageLimiter{r: bytes.NewReader(sent), w: new(bytes.Buffer), conn: p}
	l.beginStream()
	for _, want := range []int{5, 10, 5, 5} {
		if n, err := l.Read(make([]byte, 1000)); n != want || err != nil {
			t.Errorf("%d bytes, %v, want %d", n, err, want)
		}
	}
	n, err := io.Copy(io.Discard, l)
	if want := len(sent) - 25 - 65_536; int(n) != want || !errors.Is(err, errTooLong) || l.refused == nil || !p.closed {
		t.Errorf("%d bytes, %v, want %d; closed %v", n, err, want, p.closed)
	}
	row := &messageLimiter{maxRow: 999, maxRows: -1}
	if err := row.pass(message('D', 995)); !errors.Is(err, errRows) {
		t.Errorf("a long row: %v", err)
	}
}

func passes(answer []byte, most, step int) error {
	l := &messageLimiter{maxRows: most}
	for len(answer) > 0 {
		n := min(step, len(answer))
		if err := l.pass(answer[:n]); err != nil {
			return err
		}
		answer = answer[n:]
	}
	return nil
}

// The split into pieces makes no difference.
func FuzzLimit(f *testing.F) {
	f.Add(message('D', 10), uint8(2))
	f.Add([]byte{'S', 0, 0, 0, 3}, uint8(1))
	f.Fuzz(func(t *testing.T, answer []byte, step uint8) {
		if got, want := passes(answer, 100, int(step)+1), passes(answer, 100, len(answer)+1); got != want {
			t.Errorf("in pieces of %d %v, as a whole %v", int(step)+1, got, want)
		}
	})
}

// A read always ends within the maximum wait. An earlier deadline applies.
func TestPatient(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer there.Close()
		defer here.Close()
		c := &timeoutConn{Conn: here, maxWait: time.Second}
		for _, tc := range []struct {
			set  func() error
			want time.Duration
		}{
			{func() error { return nil }, time.Second},
			{func() error { return c.SetDeadline(time.Now().Add(time.Minute)) }, time.Second},
			{func() error { return c.SetDeadline(time.Now().Add(time.Millisecond)) }, time.Millisecond},
			{func() error { return c.SetDeadline(time.Now().Add(-time.Minute)) }, 0},
			{func() error { return c.SetDeadline(time.Time{}) }, time.Second},
		} {
			testenv.Must(t, tc.set())
			for _, do := range []func([]byte) (int, error){c.Read, c.Write} {
				began := time.Now()
				if _, err := do(make([]byte, 1)); err == nil || time.Since(began) > tc.want {
					t.Errorf("%v after %v, want %v", err, time.Since(began), tc.want)
				}
			}
		}
		// It also ends while the connection discards incoming bytes.
		testenv.Must(t, c.SetDeadline(time.Now().Add(time.Hour)))
		done := make(chan struct{})
		go func() { // ends with the pipe
			defer close(done)
			for {
				time.Sleep(100 * time.Millisecond)
				if _, err := there.Write(make([]byte, 1)); err != nil {
					return
				}
			}
		}()
		began := time.Now()
		for err := error(nil); err == nil; _, err = c.Read(make([]byte, 1)) {
		}
		if d := time.Since(began); d != time.Second {
			t.Errorf("it dropped what came for %v", d)
		}
		_ = there.Close()
		<-done
	})
}

// TestMemory checks that a row takes memory as soon as its length is known, and gives it back at the
// end of the answer or of the connection, below TLS too.
func TestMemory(t *testing.T) {
	m := &origintest.Memory{Left: 100_000}
	one, other := net.Pipe()
	defer other.Close()
	p := &timeoutConn{Conn: one, maxWait: time.Hour, reserved: loader.Reservation{Memory: m}}
	l := &messageLimiter{maxRows: -1, conn: timeoutConnBelow(tls.Client(p, &tls.Config{}))}
	row, end := message('D', 20_000), message('Z', 1)
	if err := l.pass(row); err != nil || m.Left > 80_000 {
		t.Errorf("a row: %v, %d bytes left", err, m.Left)
	}
	if err := l.pass(end); err != nil || m.Left != 100_000 {
		t.Errorf("the end of the answer: %v, %d bytes left", err, m.Left)
	}
	if err := l.pass(append(row, message('D', 90_000)[:5]...)); !errors.Is(err, loader.ErrNoMemory) {
		t.Errorf("a long row: %v", err)
	}
	if err := p.Close(); err != nil || m.Left != 100_000 {
		t.Errorf("the end of the connection: %v, %d bytes left", err, m.Left)
	}
	if l := (&messageLimiter{maxRows: -1, conn: timeoutConnBelow(one)}); l.pass(row) != nil || l.pass(end) != nil {
		t.Error("rows without a bound")
	}
}
