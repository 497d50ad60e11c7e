package wire

import (
	"strings"
	"testing"
)

// TestContradictions checks that elements and options without a meaning are refused.
func TestContradictions(t *testing.T) {
	key, value := []byte("k"), []byte("v")
	for _, tc := range []struct {
		name string
		q    Request
		want string
	}{
		{"create of a plain SET", Request{Op: OpSet, Key: key, Value: value, Options: Create}, "create"},
		{"create of METAGET without a claim", Request{Op: OpMetaGet, Key: key, TTLMS: TTLDefault, Options: Create}, "claim"},
		{"stale_ok of an append", Request{Op: OpSet, Key: key, Value: value, Mode: ModeAppend, Options: StaleOK}, "stale_ok"},
		{"a mode too high", Request{Op: OpSet, Key: key, Value: value, Mode: modeCount}, "mode"},
		{"two keys and a version", Request{Op: OpDelete, Keys: [][]byte{key, value}, Compare: 1}, "one key"},
		{"stale_ms of a hard deletion", Request{Op: OpDelete, Keys: [][]byte{key}, StaleMS: 1}, "stale_ms"},
		{"down of signed numbers", Request{Op: OpIncr, Key: key, Delta: 1, Options: Down}, "down"},
		{"a TTL without touch", Request{Op: OpMetaGet, Key: key, TTLMS: 5, Options: Claim}, "touch"},
		{"an end without touch", Request{Op: OpMetaGet, Key: key, TTLMS: TTLDefault, Options: CacheOnly}, "cache_only"},
		{"an end and a TTL", Request{Op: OpMetaGet, Key: key, TTLMS: 5, Options: Touch | CacheOnly}, "cache_only"},
		{"a lease too long", Request{Op: OpMetaGet, Key: key, TTLMS: TTLDefault, LeaseMS: MaxTimeout + 1}, "lease_ms"},
		{"a renewal too early", Request{Op: OpMetaGet, Key: key, TTLMS: TTLDefault, RenewMS: MaxTimeout + 1}, "renew_ms"},
	} {
		var got Request
		err := DecodeRequest(AppendRequest(nil, &tc.q)[LengthSize:], &got)
		if err == nil || err.Status != BadRequest || !strings.Contains(err.Message, tc.want) {
			t.Errorf("%s: %v, want BAD_REQUEST about %s", tc.name, err, tc.want)
		}
	}
}

func TestCommon(t *testing.T) {
	for _, tc := range []struct {
		theirs []int
		want   int
		ok     bool
	}{
		{[]int{1}, 1, true}, {[]int{1, 2}, 1, true}, {[]int{9, 1}, 1, true}, {[]int{9}, 0, false}, {nil, 0, false},
	} {
		if got, ok := Common(tc.theirs); got != tc.want || ok != tc.ok {
			t.Errorf("%v: %d, %v, want %d, %v", tc.theirs, got, ok, tc.want, tc.ok)
		}
	}
}
