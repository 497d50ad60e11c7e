package hosts

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestSoftDelete checks that the value of a softly deleted key goes, whichever host asks and whichever
// owns the key, only to readers that ask for it, as stale, and to none after another change.
func TestSoftDelete(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	a, b := twoHosts(t, Config{})
	ctx := t.Context()
	for i := range 20 {
		key, value := fmt.Sprint("key", i), []byte("value")
		if i%5 == 0 {
			value = make([]byte, 300<<10) // a chain of segments
		}
		_, set := a.Set(ctx, "default", key, value, cachesidecar.SetOptions{Flags: 7})
		_, get := b.Get(ctx, "default", key, cachesidecar.GetOptions{}) // makes a copy, on one of the two
		testenv.Must(t, errors.Join(set, get, b.Delete(ctx, "default", key, cachesidecar.DeleteOptions{Soft: true})))
		if _, err := b.Get(ctx, "default", key, cachesidecar.GetOptions{}); !errors.Is(err, cachesidecar.ErrNotFound) {
			t.Errorf("%s, without the option: %v", key, err)
		}
		for _, h := range []*host{b, a} {
			item, err := h.Get(ctx, "default", key, cachesidecar.GetOptions{StaleOK: true})
			for err == nil && !item.Stale { // a copy: its host has not heard yet
				item, err = h.Get(ctx, "default", key, cachesidecar.GetOptions{StaleOK: true})
			}
			if err != nil || !bytes.Equal(item.Value, value) || item.Flags != 7 || item.Age > 5*time.Second || item.TTL > DefaultStaleLimit {
				t.Errorf("%s: %v, %d bytes, flags %d, age %v, ttl %v", key, err, len(item.Value), item.Flags, item.Age, item.TTL)
			}
			many, err := h.GetMulti(ctx, "default", []string{key, "none"}, cachesidecar.GetOptions{StaleOK: true})
			if err != nil || len(many) != 1 || !many[key].Stale || !bytes.Equal(many[key].Value, value) {
				t.Errorf("%s: MGET: %v, %d items", key, err, len(many))
			}
		}
		var change error
		switch i % 3 {
		case 0:
			if change = a.Delete(ctx, "default", key, cachesidecar.DeleteOptions{}); errors.Is(change, cachesidecar.ErrNotFound) {
				change = nil // a stale value is none
			}
		case 1:
			_, set := b.Set(ctx, "default", key, value, cachesidecar.SetOptions{})
			change = errors.Join(set, a.Delete(ctx, "default", key, cachesidecar.DeleteOptions{}))
		case 2:
			change = a.Flush(ctx, "default", cachesidecar.FlushOptions{})
		}
		if _, err := b.Get(ctx, "default", key, cachesidecar.GetOptions{StaleOK: true}); change != nil || !errors.Is(err, cachesidecar.ErrNotFound) {
			t.Errorf("%s, gone for good (%v): %v", key, change, err)
		}
	}
}
