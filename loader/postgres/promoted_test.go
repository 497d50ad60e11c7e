package postgres

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// TestFeedPromoted checks that a standby is refused until it is promoted, and that the feed then begins
// anew there: the slot was the first server's.
func TestFeedPromoted(t *testing.T) {
	s := newFeedServer(t)
	f := s.follow("")
	state := f.State()
	second := &feedServer{Postgres: s.Standby(t), t: t}
	second.Start(t, "wal_level=logical", "max_prepared_transactions=2")
	feed := second.feed()
	if _, err := feed.Check(t.Context()); !errors.Is(err, loader.ErrFeed) || !strings.Contains(err.Error(), "the server is a standby") {
		t.Errorf("a standby: %v", err)
	}
	f.end()
	testenv.Must(t, s.Process.Process.Signal(syscall.SIGQUIT))
	_ = s.Process.Wait()
	second.Exec(t, "SELECT pg_promote()")
	testenv.Succeeds(t, "the promoted server to fit", func() error {
		_, err := feed.Check(t.Context())
		return err
	})
	stream, err := feed.Stream(t.Context(), "", state)
	testenv.Must(t, err)
	defer stream.Close()
	if stream.Anew() == "" {
		t.Error("the stream goes on, though what the first server had may be missing")
	}
}
