package wire

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// What an entry says of itself, kv.Facts, as messages have it: another fact is a line in each of these
// functions.

// Entry is an entry that moves to another host.
type Entry struct {
	_msgpack struct{} `msgpack:",as_array"`

	Namespace string
	Key       []byte
	Value     []byte
	Flags     uint32
	Version   uint64
	TTLMS     int64 // remaining; zero: no expiry
	Hits      int
	Absent    bool // a negative entry: the origin has no such key
}

// EntryOf returns an entry that says what another one says at a moment of the boot clock.
func EntryOf(f kv.Facts, now time.Duration) Entry {
	return Entry{
		Flags: f.Flags, Version: uint64(f.Version), TTLMS: f.Deadline.TTLms(now), Absent: f.Kind == kv.Absent,
	}
}

// Facts returns what the entry says of itself, on a host where it ends at a deadline.
func (e *Entry) Facts(end kv.Deadline) kv.Facts {
	f := kv.Facts{Version: kv.Version(e.Version), Deadline: end, Attributes: kv.Attributes{Flags: e.Flags}}
	if e.Absent {
		f.Kind = kv.Absent
	}
	return f
}
