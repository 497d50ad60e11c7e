package calls

import (
	"errors"
	"slices"
	"testing"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestManyHasEachKeyOnce names a key several times, and has the last answers of each request be BUSY: no key is both
// found and failed, and none is asked for again that was found.
func TestManyHasEachKeyOnce(t *testing.T) {
	for _, busy := range []int{1, 2, 9} { // from this answer on
		found, asked := map[string]int{}, []string{}
		err := Many([]string{"a", "b", "a", "c", "b"}, func(keys []string, tell func(string, *wire.Reply)) error {
			asked = append(asked, keys...)
			for i, key := range keys {
				r := wire.Reply{}
				if i >= busy || key == "c" {
					r.Status = wire.Busy
				}
				tell(key, &r)
			}
			return nil
		}, func(key string, _ *wire.Reply) { found[key]++ })
		var b *cachesidecar.BatchError
		if !errors.As(err, &b) || !slices.Equal(b.Keys, []string{"c"}) || found["a"] != 1 || found["b"] != 1 || len(found) != 2 {
			t.Errorf("BUSY from %d on: asked %q, found %v, %v", busy, asked, found, err)
		}
	}
}
