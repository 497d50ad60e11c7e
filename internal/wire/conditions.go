package wire

import (
	"math"

	"github.com/tinylib/msgp/msgp"
)

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

// incr reads the fields of INCR. What its numbers may be depends on the options behind them.
func (d *decoder) incr(r *Request) {
	d.name(r)
	var delta, initial int
	r.Delta, delta = d.bits("delta")
	if r.Create = d.has(); r.Create {
		r.Initial, initial = d.bits("initial")
	}
	r.TTLMS = d.ttl()
	d.options(r)
	d.until(r)
	d.compare(r)
	switch {
	case d.err != nil:
	case r.Has(Unsigned) && (delta < 0 || initial < 0):
		d.err = Errorf(BadRequest, "delta and initial of an unsigned INCR: want numbers from 0 to 2^64-1")
	case !r.Has(Unsigned) && (delta > 0 || initial > 0):
		d.err = Errorf(BadRequest, "delta and initial: want signed 64-bit numbers")
	}
}

// bits reads the 64 bits of a signed or unsigned number. beyond is -1 if it is negative, and
// 1 if it is above all signed numbers.
func (d *decoder) bits(field string) (v int64, beyond int) {
	if d.err == nil && d.left > 0 && len(d.b) > 0 && d.b[0] == uint64Code {
		u := d.uint(field, math.MaxUint64)
		if v = int64(u); v < 0 {
			return v, 1
		}
		return v, 0
	}
	if v = d.int(field); v < 0 {
		return v, -1
	}
	return v, 0
}

// uint64Code begins an unsigned number of 64 bits.
const uint64Code = 0xcf

func (e *encoder) incr(r *Request) {
	e.name(r)
	e.bits(r.Delta, r.Has(Unsigned))
	if r.Create {
		e.bits(r.Initial, r.Has(Unsigned))
	} else {
		e.skip()
	}
	e.ttl(r.TTLMS)
	e.optional(uint64(r.Options))
	e.optional(r.UntilNS)
	e.optional(r.Compare)
}

// bits writes 64 bits as a signed or an unsigned number.
func (e *encoder) bits(v int64, unsigned bool) {
	e.next()
	e.b = appendBits(e.b, v, unsigned)
}

func appendBits(dst []byte, v int64, unsigned bool) []byte {
	if unsigned {
		return msgp.AppendUint64(dst, uint64(v))
	}
	return appendInt(dst, v)
}

// meta reads the fields of METAGET's answer.
func (d *decoder) meta(r *Reply) {
	r.Value = d.bytes("value")
	r.Flags = uint32(d.uint("flags", math.MaxUint32))
	r.Version = d.uint("version", math.MaxUint64)
	r.TTLMS = int64(d.uint("ttl_ms", math.MaxInt64))
	r.Size = d.uint("size", math.MaxUint64)
	r.Read = d.uint("read", 1) == 1
	r.IdleMS = d.uint("idle_ms", math.MaxUint64)
	d.claim(r)
	r.Event = d.uint("event", math.MaxUint64)
}

func (d *decoder) claim(r *Reply) {
	r.Claim = ClaimState(d.uint("claim", math.MaxUint8))
	r.Number = int64(d.uint("number", math.MaxUint64))
}

// metaFields is the number of elements that appendMetaGet appends.
const metaFields = 10

func appendMetaGet(dst []byte, r *Reply) []byte {
	dst = msgp.AppendBytes(dst, r.Value)
	dst = msgp.AppendUint32(dst, r.Flags)
	dst = msgp.AppendUint64(dst, r.Version)
	dst = msgp.AppendUint64(dst, uint64(r.TTLMS))
	dst = msgp.AppendUint64(dst, r.Size)
	read := uint8(0)
	if r.Read {
		read = 1
	}
	dst = msgp.AppendUint8(dst, read)
	dst = msgp.AppendUint64(dst, r.IdleMS)
	dst = appendClaim(dst, r)
	return msgp.AppendUint64(dst, r.Event)
}

func appendClaim(dst []byte, r *Reply) []byte {
	dst = msgp.AppendUint8(dst, uint8(r.Claim))
	return msgp.AppendUint64(dst, uint64(r.Number))
}
