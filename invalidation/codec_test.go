package invalidation

import (
	"encoding/hex"
	"reflect"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestCodec checks the bytes of an event of each kind, and that they give the event.
func TestCodec(t *testing.T) {
	set := kv.NewPartitionSet(kv.Partitions)
	set.Add(0)
	set.Add(9)
	for _, tc := range []struct {
		name string
		e    Event
		want string
	}{
		{
			"a change", Event{Kind: Changed, Hash: 7, Version: 0x102},
			"92" + "c41100" + "0000000000000007" + "0000000000000102" + "c0",
		},
		{
			"floors of partitions", Event{Kind: FloorRaised, Version: 3, Detail: &Detail{Partitions: set}},
			"92" + "c41101" + "0000000000000000" + "0000000000000003" + "91" + "92" + "c4020102" + "a0",
		},
		{
			"a flush", Event{Kind: Flushed, Version: 4, Detail: &Detail{Namespace: "users"}},
			"92" + "c41102" + "0000000000000000" + "0000000000000004" + "91" + "92" + "c400" + "a57573657273",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var w wire.Events
			WatchCodec.Append(&w, &tc.e)
			b := wire.MarshalBody(&w)
			if got := hex.EncodeToString(b); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
			var read wire.Events
			testenv.Must(t, wire.UnmarshalBody(b, &read))
			var got []Event
			testenv.Must(t, WatchCodec.Each(&read, func(e Event) { got = append(got, e) }))
			if !reflect.DeepEqual(got, []Event{tc.e}) {
				t.Errorf("got %+v, want %+v", got, tc.e)
			}
		})
	}
	if err := WatchCodec.Each(&wire.Events{Packed: append([]byte{9}, make([]byte, 16)...)}, func(Event) {}); err == nil {
		t.Error("an event of a later version is read")
	}
}
