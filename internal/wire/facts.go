package wire

import (
	"math"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// What an entry says of itself, kv.Facts, as messages have it: another fact is a line in each of these
// functions. replyfacts.go passes it between an answer and an entry.

func (d *decoder) attributes(a *kv.Attributes) {
	a.Flags = uint32(d.uint("flags", math.MaxUint32))
}

func (e *encoder) attributes(a *kv.Attributes) {
	e.optional(uint64(a.Flags))
}

// facts reads what an answer with a value says of its entry.
func (d *decoder) facts(a *kv.Attributes, version *uint64, ttlMS *int64) {
	d.attributes(a)
	*version = d.uint("version", math.MaxUint64)
	*ttlMS = int64(d.uint("ttl_ms", math.MaxInt64))
}

// putFacts writes what facts reads, three numbers, from a place on, and returns their end.
func putFacts(dst []byte, at int, a kv.Attributes, version uint64, ttlMS int64) int {
	at = putUint(dst, at, uint64(a.Flags))
	at = putUint(dst, at, version)
	return putUint(dst, at, uint64(ttlMS))
}

// Entry is an entry that moves to another host.
type Entry struct {
	Namespace string
	Key       []byte
	Value     []byte
	Flags     uint32
	Version   uint64
	TTLMS     int64 // remaining; zero: no expiry
	Hits      int
	Absent    bool // a negative entry: the origin has no such key
}

// EntryOf returns an entry that says what another one says now.
func EntryOf(f kv.Facts, now kv.Moment) Entry {
	return Entry{
		Flags: f.Flags, Version: uint64(f.Version), TTLMS: f.Deadline.TTLms(now.Boot), Absent: f.Kind == kv.Absent,
	}
}

// Facts returns what the entry says of itself, on a host where it ends at a deadline.
func (entry *Entry) Facts(end kv.Deadline) kv.Facts {
	f := kv.Facts{Version: kv.Version(entry.Version), Deadline: end, Attributes: kv.Attributes{Flags: entry.Flags}}
	if entry.Absent {
		f.Kind = kv.Absent
	}
	return f
}
