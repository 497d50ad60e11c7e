package wire

import "math"

// The elements and options of version 2 that have a meaning only beside others.

// contradiction returns an error if a request has an element or an option that its other
// elements give no meaning to.
func (r *Request) contradiction() *Error {
	switch {
	case r.Op == OpSet && r.Has(Create) && !r.Mode.IsConcat():
		return Errorf(BadRequest, "the option create of SET is for the modes append and prepend")
	case r.Op == OpSet && r.Has(StaleOK) && r.Mode != ModeCAS:
		return Errorf(BadRequest, "the option stale_ok of SET is for the mode that compares")
	case r.Op == OpDelete && r.Compare != 0 && len(r.Keys) != 1:
		return Errorf(BadRequest, "compare is for the deletion of one key, not of %d", len(r.Keys))
	case r.Op == OpDelete && r.StaleMS != 0 && !r.Has(Soft):
		return Errorf(BadRequest, "stale_ms is for a deletion with the option soft")
	case r.Op == OpIncr && r.Has(Down) && !r.Has(Unsigned):
		return Errorf(BadRequest, "the option down is for unsigned numbers: a signed delta may be negative")
	case r.Op == OpMetaGet && r.Has(Create) && !r.Has(Claim):
		return Errorf(BadRequest, "the option create of METAGET is for a claim: give the option claim too")
	case r.Op == OpMetaGet && r.TTLMS != TTLDefault && !r.Has(Touch):
		return Errorf(BadRequest, "ttl_ms of METAGET needs the option touch")
	case r.Op == OpMetaGet && r.Has(CacheOnly) && (!r.Has(Touch) || r.TTLMS != TTLDefault):
		return Errorf(BadRequest, "the option cache_only of METAGET needs the option touch, and no ttl_ms: the value "+
			"ends at once")
	}
	return nil
}

func (d *decoder) compare(r *Request) { r.Compare = d.uint("compare", math.MaxUint64) }
