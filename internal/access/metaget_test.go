package access

import (
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// TestMetaGetRights checks that METAGET needs the right to write if it may change something.
func TestMetaGetRights(t *testing.T) {
	a, err := New(Config{Namespaces: map[string]Grants{"users": {Read: []string{"5"}, Write: []string{"6"}}}})
	testenv.Must(t, err)
	for _, tc := range []struct {
		name string
		uid  int
		o    wire.Options
		want bool
	}{
		{"a reader", 5, 0, true},
		{"a reader, without a trace", 5, wire.Unread | wire.NoValue | wire.NoLoad, true},
		{"a reader that touches", 5, wire.Touch, false},
		{"a reader that claims", 5, wire.Claim | wire.Unread, false},
		{"a writer", 6, wire.Touch | wire.Claim, true},
		{"a stranger", 7, 0, false},
	} {
		c := a.Caller(unixsock.Peer{UID: tc.uid, GID: tc.uid})
		q := &wire.Request{Op: wire.OpMetaGet, Namespace: []byte("users"), Options: tc.o}
		if err, _ := c.Refusal(q); (err == nil) != tc.want {
			t.Errorf("%s: %v, want it served: %v", tc.name, err, tc.want)
		}
	}
}
