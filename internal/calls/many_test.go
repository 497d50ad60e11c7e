package calls

import (
	"errors"
	"fmt"
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

// TestManyKeepsWhatWasThere has the second request of a call fail: the keys of the first are found, and all others
// have its error.
func TestManyKeepsWhatWasThere(t *testing.T) {
	var keys []string
	for i := range 3 * wire.MaxKeys {
		keys = append(keys, fmt.Sprint("k", i))
	}
	lost, requests, found := errors.New("the connection was lost"), 0, 0
	err := Many(keys, func(some []string, tell func(string, *wire.Reply)) error {
		if requests++; requests == 2 {
			return lost
		}
		for _, key := range some {
			tell(key, &wire.Reply{})
		}
		return nil
	}, func(string, *wire.Reply) { found++ })
	var b *cachesidecar.BatchError
	if !errors.As(err, &b) || !slices.Equal(b.Keys, keys[wire.MaxKeys:]) || found != wire.MaxKeys {
		t.Fatalf("%d are found, %v", found, err)
	}
	for _, key := range b.Keys {
		if Of(err, key) != lost {
			t.Errorf("%s: %v", key, Of(err, key))
		}
	}
}

// TestManyBesideBusy has the first key of a call be BUSY, and the last one because a long value has left no room in
// the answer: that one is asked for again, and is not lost with the first.
func TestManyBesideBusy(t *testing.T) {
	for _, size := range []int{longAnswer - 1, longAnswer} {
		requests, found := 0, []string(nil)
		err := Many([]string{"busy", "long", "last"}, func(keys []string, tell func(string, *wire.Reply)) error {
			requests++
			for _, key := range keys {
				r := wire.Reply{}
				switch {
				case key == "long":
					r.Value = make([]byte, size)
				case key == "busy" || requests == 1:
					r.Status = wire.Busy
				}
				tell(key, &r)
			}
			return nil
		}, func(key string, _ *wire.Reply) { found = append(found, key) })
		want, failed := []string{"long", "last"}, []string{"busy"}
		if size < longAnswer { // asking again is no use
			want, failed = want[:1], []string{"busy", "last"}
		}
		var b *cachesidecar.BatchError
		if !errors.As(err, &b) || !slices.Equal(b.Keys, failed) || !slices.Equal(found, want) {
			t.Errorf("beside %d bytes: found %q, %v", size, found, err)
		}
	}
}
