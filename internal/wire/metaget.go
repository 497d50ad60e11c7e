package wire

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/tinylib/msgp/msgp"
)

func (d *decoder) metaGet(r *Request) {
	d.name(r)
	r.TTLMS = d.ttl()
	d.options(r)
	d.until(r)
	r.LeaseMS = uint32(d.uint("lease_ms", MaxTimeout))
	r.RenewMS = uint32(d.uint("renew_ms", MaxTimeout))
	d.means(!r.Has(Create) || r.Has(Claim), "the option create of METAGET is for a claim: give the option claim too")
	d.means(r.TTLMS == TTLDefault || r.Has(Touch), "ttl_ms of METAGET needs the option touch")
	d.means(!r.Has(CacheOnly) || r.Has(Touch) && r.TTLMS == TTLDefault,
		"the option cache_only of METAGET needs the option touch, and no ttl_ms: the value ends at once")
}

func (e *encoder) metaGet(r *Request) {
	e.name(r)
	e.ttl(r.TTLMS)
	e.optional(uint64(r.Options))
	e.optional(r.UntilNS)
	e.optional(uint64(r.LeaseMS))
	e.optional(uint64(r.RenewMS))
}

// meta reads the fields of METAGET's answer.
func (d *decoder) meta(r *Reply) {
	r.Value = d.bytes("value")
	d.facts(&r.Attributes, &r.Version, &r.TTLMS)
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
	at := len(dst)
	dst = slices.Grow(dst, 3*longestUint)[:at+3*longestUint]
	dst = dst[:putFacts(dst, at, r.Attributes, r.Version, r.TTLMS)]
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

// ClaimToken returns the number of a claim as the token of a FILL, which may give the claim back.
func ClaimToken(number uint64) []byte { return binary.BigEndian.AppendUint64(nil, number) }

// ClaimOf returns the number of a claim that is the token of a FILL.
func ClaimOf(token []byte) (number uint64, ok bool) {
	if len(token) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(token), true
}
