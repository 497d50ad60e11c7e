package postgres

import (
	"syscall"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestFeedPromoted checks that a standby is refused until it is promoted, and that the feed then begins
// anew there: the slot was the first server's.
func TestFeedPromoted(t *testing.T) {
	s := newFeedServer(t)
	f := s.follow("")
	known := f.Checkpoint()
	second := &feedServer{Postgres: s.Standby(t), t: t}
	second.Start(t, "wal_level=logical", "max_prepared_transactions=2")
	feed := second.feed()
	refused(t, "a standby", testenv.ErrorOf(feed.Check(t.Context())), "the server is a standby")
	f.end()
	testenv.Must(t, s.Process.Process.Signal(syscall.SIGQUIT))
	_ = s.Process.Wait()
	second.Exec(t, "SELECT pg_promote()")
	testenv.Succeeds(t, "the promoted server to fit", func() error { return testenv.ErrorOf(feed.Check(t.Context())) })
	stream, err := feed.Stream(t.Context(), "", known)
	testenv.Must(t, err)
	defer stream.Close()
	if stream.Gap() == "" {
		t.Error("the stream goes on, though what the first server had may be missing")
	}
}
