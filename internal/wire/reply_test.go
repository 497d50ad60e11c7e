package wire

import (
	"bytes"
	"slices"
	"testing"

	"github.com/tinylib/msgp/msgp"
)

// TestAnswersAreToTheKeysAskedFor checks that an answer, unless it is an error, must
// have an item for each key of its request.
func TestAnswersAreToTheKeysAskedFor(t *testing.T) {
	keys := func(n int) (list [][]byte) {
		for range n {
			list = append(list, []byte("k"))
		}
		return list
	}
	two := []Reply{{Version: 1}, {Status: Miss}}
	for _, tc := range []struct {
		name  string
		ask   Request
		reply Reply
		taken bool
	}{
		{"MGET", Request{Op: OpMGet, Keys: keys(2)}, Reply{Items: two}, true},
		{"DELETE", Request{Op: OpDelete, Keys: keys(2)}, Reply{Items: two}, true},
		{"an error", Request{Op: OpDelete, Keys: keys(2)}, Reply{Status: Busy}, true},
		{"one key", Request{Op: OpSet, Key: []byte("k")}, Reply{Version: 1}, true},
		{"an item too few", Request{Op: OpMGet, Keys: keys(3)}, Reply{Items: two}, false},
		{"an item too many", Request{Op: OpDelete, Keys: keys(1)}, Reply{Items: two}, false},
		{"no items", Request{Op: OpDelete, Keys: keys(2)}, Reply{}, false},
		{"MISS of all", Request{Op: OpDelete, Keys: keys(2)}, Reply{Status: Miss}, false},
		{"STALE of all", Request{Op: OpMGet, Keys: keys(2)}, Reply{Status: Stale, Items: two}, false},
	} {
		frame := AppendReply(nil, tc.ask.Op, &tc.reply)[LengthSize:]
		var got Reply
		err := DecodeAnswer(&tc.ask, frame, &got)
		if (err == nil) != tc.taken || err != nil && len(got.Items) > 0 {
			t.Errorf("%s: %d items, %v; want it taken %v", tc.name, len(got.Items), err, tc.taken)
		}
	}
}

// A long reply uses no more memory than its size, except for the allocator's rounding,
// and long returns an upper bound of its size.
func TestLongReplies(t *testing.T) {
	item := Reply{Value: make([]byte, 100_000), TTLMS: 1 << 40, Version: 1 << 63, Attested: true, AsOf: 1 << 63, Owner: []byte("node1")}
	for op, r := range map[Op]*Reply{
		OpGet:    &item,
		OpMGet:   {Items: []Reply{item, item, {Status: Busy, Message: make([]byte, 5000)}, {Status: Miss}}},
		OpDelete: {ID: 1 << 63, Items: slices.Repeat([]Reply{{Version: 1 << 63}, {Status: Busy, Message: make([]byte, 300)}}, 100)},
	} {
		if b := AppendReply(nil, op, r); cap(b) > len(b)+16<<10 || r.sizeBound(op) < len(b) {
			t.Errorf("%s: %d bytes in %d, measured as %d", op, len(b), cap(b), r.sizeBound(op))
		}
	}
}

// TestPutUint compares putUint with the msgp library, around the bounds of each form.
func TestPutUint(t *testing.T) {
	for _, edge := range []uint64{0, 1 << 7, 1 << 8, 1 << 16, 1 << 32} {
		for v := edge - 2; v != edge+2; v++ {
			got := make([]byte, 1+longestUint)
			got = got[:putUint(got, 1, v)]
			if want := msgp.AppendUint64([]byte{0}, v); !bytes.Equal(got, want) {
				t.Errorf("%d: %x, want %x", v, got, want)
			}
		}
	}
}
