package wire

import "github.com/cachesidecar/cachesidecar/internal/kv"

// SetFacts makes an answer say what an entry says now.
func (r *Reply) SetFacts(f kv.Facts, now kv.Moment) {
	r.Attributes, r.Version, r.TTLMS = f.Attributes, uint64(f.Version), f.Deadline.TTLms(now.Boot)
	switch f.Kind {
	case kv.Absent:
		r.Status, r.Why = Miss, Absent
	case kv.Stale:
		r.Status = Stale
	}
}

// Facts returns what the entry of an answer says of itself, on a host where it ends at a deadline.
func (r *Reply) Facts(end kv.Deadline) kv.Facts {
	f := kv.Facts{Version: kv.Version(r.Version), Deadline: end, Attributes: r.Attributes}
	switch {
	case r.Status == Miss && r.Why == Absent:
		f.Kind = kv.Absent
	case r.Status == Stale:
		f.Kind = kv.Stale
	}
	return f
}
