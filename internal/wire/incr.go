package wire

import (
	"math"

	"github.com/tinylib/msgp/msgp"
)

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
	d.means(!r.Has(Unsigned) || delta >= 0 && initial >= 0,
		"delta and initial of an unsigned INCR: want numbers from 0 to 2^64-1")
	d.means(r.Has(Unsigned) || delta <= 0 && initial <= 0, "delta and initial: want signed 64-bit numbers")
	d.means(!r.Has(Down) || r.Has(Unsigned),
		"the option down is for unsigned numbers: a signed delta may be negative")
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
