package engine

import (
	"reflect"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/segment"
	"github.com/cachesidecar/cachesidecar/loader"
)

// TestRepliesBesideTheStore checks what readers are told of a value that must not be kept, and of a stale one.
func TestRepliesBesideTheStore(t *testing.T) {
	r := uncached(loader.Value{Bytes: []byte("v"), Flags: 7}, 5)
	if r.Status != wire.OK || string(r.Value) != "v" || r.Flags != 7 || r.Version != 5 || r.TTLMS != 1 || r.Source != wire.SourceOrigin {
		t.Errorf("not to be kept: %+v", r)
	}
	old := segment.Stale{Ended: 2 * time.Second}
	old.Facts = kv.Facts{Version: 5, Deadline: kv.Before(9 * time.Second), Attributes: kv.Attributes{Flags: 7}, Kind: kv.Stale}
	r = oldReply([]byte("v"), &old, kv.Moment{Boot: time.Second})
	if r.Status != wire.Stale || string(r.Value) != "v" || r.Flags != 7 || r.Version != 5 || r.TTLMS != 8000 ||
		r.AgeMS != 2000 || r.Source != wire.SourceL2 {
		t.Errorf("stale: %+v", r)
	}
}

// TestItemsAreReused: an answer's items are in the array of an earlier one, and tell nothing of it. The race detector's
// pool forgets some.
func TestItemsAreReused(t *testing.T) {
	for range 100 {
		r := wire.Reply{Items: newItems(10)}
		first := &r.Items[0]
		for i := range r.Items {
			r.Items[i] = wire.Reply{Status: wire.OK, Value: []byte("of another app"), Version: 1}
		}
		if FreeItems(&r); r.Items != nil {
			t.Fatal("the reply still has its items")
		}
		next := newItems(8)
		for i := range next {
			if !reflect.DeepEqual(next[i], wire.Reply{}) {
				t.Fatalf("item %d is %+v", i, next[i])
			}
		}
		if &next[0] == first {
			return
		}
	}
	t.Error("no array was reused in a hundred times")
}

// TestPlacesYield: the place of a connection that has ended is for others of its tenant, and for no other tenant.
func TestPlacesYield(t *testing.T) {
	b := quota.NewBudget(1 << 20)
	gone, same, other := b.Open("user", "1"), b.Open("user", "2"), b.Open("another", "1")
	if (tokenPlace{gone}).YieldsTo(tokenPlace{same}) {
		t.Error("a connection that is there yields its place")
	}
	gone.Close()
	if !(tokenPlace{gone}).YieldsTo(tokenPlace{same}) || (tokenPlace{gone}).YieldsTo(tokenPlace{other}) || (tokenPlace{gone}).YieldsTo(nil) {
		t.Error("the place of a connection that has ended is not for its tenant, or for others")
	}
}
