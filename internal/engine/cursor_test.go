package engine

import (
	"bytes"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// FuzzCursor: what is read as a cursor is written as the same bytes; all else is
// BAD_REQUEST.
func FuzzCursor(f *testing.F) {
	const epoch = kv.Epoch(0x0102030405060708)
	f.Add([]byte(nil))
	f.Add([]byte{})
	f.Add(appendCursor(nil, segment.Position{Shard: 3, Root: 8, Rest: 1 << 63}, epoch))
	f.Add(appendCursor(nil, segment.Position{}, epoch+1))
	f.Fuzz(func(t *testing.T, cursor []byte) {
		p, bad := parseCursor(cursor, epoch)
		switch {
		case bad != nil && bad.Status == wire.BadRequest:
		case bad != nil:
			t.Errorf("%x: %v", cursor, bad)
		case cursor == nil && p != segment.Position{}:
			t.Errorf("no cursor is %+v", p)
		case cursor != nil && !bytes.Equal(appendCursor(nil, p, epoch), cursor):
			t.Errorf("%x is %+v", cursor, p)
		}
	})
}
