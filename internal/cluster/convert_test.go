package cluster

import (
	"encoding/hex"
	"reflect"
	"testing"

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
	}
	w := toEvents(list)
	b := wire.MarshalBody(&w)
	want := "92" + "c422" +
		"01" + "0000000000000000" + "0000000000000003" +
		"02" + "0000000000000000" + "0000000000000004" +
		"92" + "92c402" + "0012" + "a0" + "92c0a5" + "7573657273"
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, err := fromEvents(&w); err != nil || !reflect.DeepEqual(got, list) {
		t.Errorf("%+v, %v, want %+v", got, err, list)
	}
}
