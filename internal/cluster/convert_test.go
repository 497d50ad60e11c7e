package cluster

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
)

func setOf(list ...uint16) kv.PartitionSet {
	s := kv.NewPartitionSet(kv.Partitions)
	for _, p := range list {
		s.Add(p)
	}
	return s
}

func TestSetTravels(t *testing.T) {
	share := func(of int) kv.PartitionSet {
		rnd := rand.New(rand.NewPCG(1, uint64(of)))
		s := setOf()
		for p := range uint16(kv.Partitions) {
			if rnd.IntN(of) == 0 {
				s.Add(p)
			}
		}
		return s
	}
	for _, test := range []struct {
		name string
		set  kv.PartitionSet
		most int // bytes
	}{
		{"none", setOf(), 1},
		{"first", setOf(0), 2},
		{"last", setOf(kv.Partitions - 1), 4},
		{"two", setOf(0, kv.Partitions-1), 5},
		{"neighbours", setOf(63, 64, 65), 4},
		{"all", share(1), 1 + kv.Partitions/8},
		{"of 3", share(3), 1 + kv.Partitions/8},
		{"of 20", share(20), 900},
		{"of 100", share(100), 260},
	} {
		b := toSet(test.set)
		if got := fromSet(b); !slices.Equal(got, test.set) {
			t.Errorf("%s: %d partitions came of %d", test.name, got.Len(), test.set.Len())
		}
		if len(b) > test.most {
			t.Errorf("%s takes %d bytes, want at most %d", test.name, len(b), test.most)
		}
	}
}

// TestEventBytes checks the bytes of events between sidecars.
func TestEventBytes(t *testing.T) {
	list := []invalidation.Event{
		{Kind: invalidation.Raised, Version: 3, Detail: &invalidation.Detail{Partitions: setOf(1, 4)}},
		{Kind: invalidation.Flushed, Version: 4, Detail: &invalidation.Detail{Namespace: "users"}},
		{Kind: invalidation.Barrier, Hash: 5, Version: 6, Detail: &invalidation.Detail{Lag: 7 * time.Millisecond}},
	}
	w := toEvents(list)
	b, err := wire.MarshalBody(&w)
	if err != nil {
		t.Fatal(err)
	}
	want := "92" + "c433" +
		"01" + "0000000000000000" + "0000000000000003" +
		"02" + "0000000000000000" + "0000000000000004" +
		"03" + "0000000000000005" + "0000000000000006" +
		"93" + "93c402" + "0012" + "a000" + "93c0a5" + "7573657273" + "00" + "93c0a007"
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, err := fromEvents(&w); err != nil || !reflect.DeepEqual(got, list) {
		t.Errorf("%+v, %v, want %+v", got, err, list)
	}
}

// FuzzSet checks that for any bytes, the decoded partitions exist.
func FuzzSet(f *testing.F) {
	f.Add([]byte{})
	f.Add(toSet(setOf(1, 2, 300, kv.Partitions-1)))
	f.Add(bytes.Repeat([]byte{0xff}, 3000))
	f.Add(append([]byte{setBits}, bytes.Repeat([]byte{0xff}, 3000)...))
	f.Add(bytes.Repeat([]byte{setGaps}, 20000))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := fromSet(b)
		if len(s) != kv.Partitions/64 {
			t.Fatalf("%d words", len(s))
		}
		if again := fromSet(toSet(s)); !slices.Equal(s, again) {
			t.Fatalf("%d partitions, and %d once they have travelled", s.Len(), again.Len())
		}
	})
}
