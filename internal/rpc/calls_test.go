package rpc

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestCallsUsed checks that calls knows which of its slots are in use, whatever the order in
// which they end.
func TestCallsUsed(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var s calls
	var ids []uint64
	for range 10_000 {
		if len(ids) > 0 && random.IntN(100) < 50 {
			i := random.IntN(len(ids))
			s.endCall(s.find(ids[i]))
			ids = slices.Delete(ids, i, i+1)
		} else {
			ids = append(ids, s.add(nil, time.Time{}))
		}
		var used []uint64
		for at, c := range s.used {
			if used = append(used, c.id); c.at != at {
				t.Fatalf("a slot at %d takes itself for the one at %d", at, c.at)
			}
		}
		slices.Sort(used)
		if want := slices.Sorted(slices.Values(ids)); !slices.Equal(used, want) {
			t.Fatalf("%x are in use, not %x", used, want)
		}
	}
}

// TestItemsAreReused checks that the items of a call's answers come into one array, and that a
// released call keeps nothing of an answer, also of one that cannot be decoded.
func TestItemsAreReused(t *testing.T) {
	q := &wire.Request{Op: wire.OpMGet, Keys: [][]byte{[]byte("a"), []byte("b")}}
	var c Client
	decode := func(call *Call, items ...wire.Reply) (r wire.Reply, err error) {
		call.frame = wire.AppendReply(nil, q.Op, &wire.Reply{Items: items})[wire.LengthSize:]
		err = call.Decode(q, &r)
		return r, err
	}
	call := &Call{}
	first, err := decode(call, wire.Reply{Value: []byte("old"), Version: 7}, wire.Reply{Value: []byte("old")})
	testenv.Must(t, err)
	c.Release(call)
	if first.Items[0].Value != nil {
		t.Errorf("a released call keeps %q", first.Items[0].Value)
	}
	second, err := decode(call, wire.Reply{Status: wire.Miss}, wire.Reply{Value: []byte("new")})
	testenv.Must(t, err)
	if &second.Items[0] != &first.Items[0] || second.Items[0].Version != 0 || string(second.Items[1].Value) != "new" {
		t.Errorf("the second answer is %+v", second.Items)
	}
	if _, err := decode(call, second.Items[1]); err == nil || call.items != nil {
		t.Errorf("an answer to one of two keys: %v, and %d items are kept", err, cap(call.items))
	}
}
