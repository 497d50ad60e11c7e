package changes

import (
	"context"

	"github.com/cachesidecar/cachesidecar/loader"
)

// warn logs what earlier feeds have left behind at the server, if the kind of origin can tell. An error is
// that of a connection, which the next question finds out too.
func (f *Follower) warn(ctx context.Context, stream loader.FeedStream) {
	s, can := stream.(interface {
		Left(context.Context) (warnings []string, err error)
	})
	if !can {
		return
	}
	left, _ := s.Left(ctx)
	for _, text := range left {
		f.log.Warn("a replication slot is not in use, and keeps the log of the database", "warning", text)
	}
}
