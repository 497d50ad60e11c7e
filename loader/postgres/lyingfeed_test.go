package postgres

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// lyingStream begins a stream of a server that lies.
func lyingStream(t *testing.T, lie string, memory loader.Memory) (loader.FeedStream, error) {
	t.Helper()
	feed := feedOf(t, FeedConfig{
		DSN:    "postgres://tester@" + origintest.LyingFeed(t, lie) + "/db?sslmode=disable",
		Tables: map[string]FeedTable{"public.t": {"users", "{id}"}},
	})
	feed.ChargeTo(memory)
	stream, err := feed.Stream(t.Context(), "", "")
	if err == nil {
		t.Cleanup(stream.Close)
	}
	return stream, err
}

// TestFeedLies checks what becomes of a stream whose server lies.
func TestFeedLies(t *testing.T) {
	for _, tc := range []struct {
		lie, want string
		gap       bool
	}{
		{"no columns", "an unknown form", false},
		{"a long row", "an answer of the server has more than", true},
		{"rows without end", "an answer of the server has more than", true},
		{"open transactions", "an answer of the server has more than", true},
		{"notices", "the answer is too long", false},
		{"tables", "rows of more than 65536 tables", true},
	} {
		m := &origintest.Memory{Left: 1 << 30}
		stream, err := lyingStream(t, tc.lie, m)
		if err == nil && tc.lie == "open transactions" {
			_, err = stream.View(t.Context())
		}
		for err == nil {
			_, err = stream.Receive(t.Context())
		}
		if !strings.Contains(err.Error(), tc.want) || errors.Is(err, loader.ErrGap) != tc.gap {
			t.Errorf("%s: %v, want %q; a gap: %v", tc.lie, err, tc.want, tc.gap)
		}
	}
}

// TestFeedMemory checks that the answers to a feed's statements take memory while they come.
func TestFeedMemory(t *testing.T) {
	m := &origintest.Memory{Left: 5000}
	if _, err := lyingStream(t, "a row", m); !errors.Is(err, loader.ErrNoMemory) || m.Left != 5000 {
		t.Errorf("with too little: %v, %d bytes left", err, m.Left)
	}
	m = &origintest.Memory{Left: 50_000}
	if _, err := lyingStream(t, "a row", m); err != nil || m.Left != 50_000 || m.Taken == 0 {
		t.Errorf("with enough: %v, %d bytes left, %d taken", err, m.Left, m.Taken)
	}
}

// TestFeedLongRow checks that a long row takes no memory, and that what follows it comes.
func TestFeedLongRow(t *testing.T) { // not in parallel, so that it counts its own memory alone
	stream, err := lyingStream(t, "a long row of the log", nil)
	testenv.Must(t, err)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var got *loader.Transaction
	for got == nil {
		got, err = stream.Receive(t.Context())
		testenv.Must(t, err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
		t.Errorf("%d bytes were allocated for a row of 64 MiB", n)
	}
	if text(got) != "users 42" {
		t.Errorf("the transaction is %q", text(got))
	}
}

// TestFeedLongRows checks that long rows of a server name their keys, as they were and as they are.
func TestFeedLongRows(t *testing.T) {
	s := newFeedServer(t)
	s.Exec(t, "ALTER TABLE users ALTER name SET STORAGE EXTERNAL")
	s.Exec(t, "ALTER TABLE users REPLICA IDENTITY FULL")
	f := s.follow("")
	f.names("INSERT INTO users VALUES (1, repeat('x', 5000000))", "users 1")
	f.names("UPDATE users SET id = 2", "users 1,2")
	f.names("INSERT INTO users VALUES (3, 'a')", "users 3")
}
