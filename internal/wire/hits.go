package wire

// Hits are reads that a client has answered itself, at most MaxHits of each kind.
type Hits struct {
	Shared uint32 // found in the shared memory
	Absent uint32 // found there to be keys that the origin does not have
	Near   uint32 // found in the client's near cache
}

// hits reads a report, with the keys of some of the reads.
func (d *decoder) hits(r *Request) {
	d.names(0, r)
	r.Hits.Shared = uint32(d.uint("shared", MaxHits))
	r.Hits.Absent = uint32(d.uint("absent", MaxHits))
	r.Hits.Near = uint32(d.uint("near", MaxHits))
	d.options(r)
}

func (e *encoder) hits(r *Request) {
	e.names(r)
	e.optional(uint64(r.Hits.Shared))
	e.optional(uint64(r.Hits.Absent))
	e.optional(uint64(r.Hits.Near))
	e.optional(uint64(r.Options))
}
