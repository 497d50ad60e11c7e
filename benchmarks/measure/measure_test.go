package measure

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/load"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestContestCloses checks that a contest closes the connections of all sides, in the
// place where the measurements ask for it: a defer before the first side enters.
func TestContestCloses(t *testing.T) {
	var far []net.Conn
	func() {
		c := &contest{}
		defer c.close()
		for _, name := range []string{"one", "other"} {
			c.enter(name, load.Config{
				Dial: func() (net.Conn, error) {
					near, other := net.Pipe()
					far = append(far, other)
					return near, nil
				},
				Protocol: peers.Memcached{KeySize: 16}, Conns: 2, Pipeline: 1, Key: func(int, int) uint64 { return 0 },
			})
		}
	}()
	if len(far) != 4 {
		t.Fatalf("%d connections, want 4", len(far))
	}
	for _, nc := range far {
		_ = nc.SetDeadline(testenv.Deadline())
		if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%v, want a closed connection", err)
		}
	}
}

// TestMoves checks the figures of reads while hosts come and go.
func TestMoves(t *testing.T) {
	const shape = "hosts move"
	b := &Bench{log: io.Discard}
	windows := []window{{reads: 100, hits: 100}, {reads: 50, hits: 25, degraded: 5}, {reads: 50, hits: 49, errors: 1}}
	b.putMoves(shape, windows, []moment{{500 * time.Millisecond, "host-1", "started, s"}, {900 * time.Millisecond, "host-1", isIn}, {1500 * time.Millisecond, "host-2", isIn}})
	for _, c := range []struct {
		side, figure string
		want         float64
	}{
		{"", "hits in the lowest second, %", 50}, {"", "hits in all seconds, %", 87}, {"", "misses of entries that are gone", 20},
		{"", "misses since no owner could be reached in time", 5}, {"", "errors of reads", 1},
		{"host-1", isIn, 0.9}, {"host-1", "hits until then, lowest second, %", 100}, {"host-2", "hits until then, lowest second, %", 50},
	} {
		if got := b.rows.Of(shape, c.side, c.figure); len(got) != 1 || got[0] != c.want {
			t.Errorf("%s of %q: got %v, want %v", c.figure, c.side, got, c.want)
		}
	}
	if got := b.rows.Of(shape, record.BySecond, "hits"); !slices.Equal(got, []float64{100, 25, 49}) {
		t.Errorf("got hits %v by the second", got)
	}
	b.putMoves("a second without answers", append(windows, window{}), nil)
	if got := b.rows.Of("a second without answers", "", "hits in the lowest second, %"); got[0] != 0 {
		t.Errorf("got %v %% for a second in which no read was answered, want 0", got)
	}
}

// TestFailures checks that what fails in a measurement ends it, says where, and closes what is open, the last first.
func TestFailures(t *testing.T) {
	b := &Bench{log: io.Discard}
	var closed []string
	err := b.Run(t.Context(), record.Parameters{}, func(b *Bench, _ context.Context, _ record.Parameters) {
		b.closes(func() { closed = append(closed, "first") })
		within("a part", func() {
			defer b.scope()()
			b.closes(func() { closed = append(closed, "second") })
			must(0, io.ErrUnexpectedEOF)
			t.Error("the measurement goes on")
		})
	})
	if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.HasPrefix(err.Error(), "a part: ") {
		t.Errorf("got error %v", err)
	}
	if !slices.Equal(closed, []string{"second", "first"}) {
		t.Errorf("closed: %q", closed)
	}
	defer func() {
		if r := recover(); r != "a defect" {
			t.Errorf("recovered %v, want what is no failure to go on", r)
		}
	}()
	_ = b.Run(t.Context(), record.Parameters{}, func(*Bench, context.Context, record.Parameters) { panic("a defect") })
}
