package cluster

import (
	"encoding/hex"
	"reflect"
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

// TestEventBytes checks the bytes of events between sidecars.
func TestEventBytes(t *testing.T) {
	list := []invalidation.Event{
		{Kind: invalidation.FloorRaised, Version: 3, Detail: &invalidation.Detail{Partitions: setOf(1, 4)}},
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
