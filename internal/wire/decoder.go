package wire

import (
	"cmp"
	"fmt"
	"math"

	"github.com/tinylib/msgp/msgp"
)

// decoder reads the elements of one array in order. After an error it returns zeros.
type decoder struct {
	b    []byte
	left int
	err  *Error
}

// has reports whether the next element is there and not nil. It consumes a nil.
func (d *decoder) has() bool {
	if d.err != nil || d.left == 0 {
		return false
	}
	if len(d.b) == 0 {
		d.err = Errorf(BadRequest, "the frame ends %d elements early", d.left)
		return false
	}
	if msgp.IsNil(d.b) {
		d.left--
		d.b = d.b[1:]
		return false
	}
	return true
}

func (d *decoder) fail(field string, want any, err error) {
	if d.err != nil {
		return
	}
	got := "nothing"
	if len(d.b) > 0 {
		got = msgp.NextType(d.b).String()
	}
	if err != nil {
		got = fmt.Sprintf("%s (%v)", got, err)
	}
	d.err = Errorf(BadRequest, "%s: want %v, got %s", field, want, got)
}

// must is has for an element that may be neither nil nor left out.
func (d *decoder) must(field string) bool {
	there := d.has()
	if !there && d.err == nil {
		d.err = Errorf(BadRequest, "%s is missing", field)
	}
	return there
}

// number reads a required unsigned number.
func (d *decoder) number(field string) uint64 {
	if !d.must(field) {
		return 0
	}
	return d.uint(field, math.MaxUint64)
}

func (d *decoder) uint(field string, most uint64) uint64 {
	if !d.has() {
		return 0
	}
	v, rest, err := msgp.ReadUint64Bytes(d.b)
	if err != nil || v > most {
		if err == nil {
			err = fmt.Errorf("%d", v)
		}
		d.fail(field, fmt.Sprintf("a number from 0 to %d", most), err)
		return 0
	}
	d.left--
	d.b = rest
	return v
}

func (d *decoder) int(field string) int64 {
	if !d.has() {
		return 0
	}
	v, rest, err := msgp.ReadInt64Bytes(d.b)
	if err != nil {
		d.fail(field, "a signed 64-bit number", err)
		return 0
	}
	d.left--
	d.b = rest
	return v
}

// bytes reads a required bin or str.
func (d *decoder) bytes(field string) []byte {
	if !d.must(field) {
		return nil
	}
	return d.text(field)
}

// optional reads a bin or str. It returns nil for an absent element; the caller applies
// the default.
func (d *decoder) optional(field string) []byte {
	if !d.has() {
		return nil
	}
	return d.text(field)
}

// text reads a bin or str. The caller has checked that an element is there.
func (d *decoder) text(field string) []byte {
	var v, rest []byte
	var err error
	if c := d.b[0]; c >= 0xc4 && c <= 0xc6 {
		v, rest, err = msgp.ReadBytesZC(d.b)
	} else {
		v, rest, err = msgp.ReadStringZC(d.b)
	}
	if err != nil {
		d.fail(field, "bin or str", err)
		return nil
	}
	d.left--
	d.b = rest
	return v
}

// raw reads one value of any type, without decoding it.
func (d *decoder) raw() []byte {
	if d.err != nil || d.left == 0 {
		return nil
	}
	rest, err := skipValue(d.b, 1)
	if err != nil {
		d.err = Errorf(BadRequest, "%v", err)
		return nil
	}
	v := d.b[:len(d.b)-len(rest)]
	d.left--
	d.b = rest
	return v
}

// ttl reads a TTL. nil means the namespace's TTL.
func (d *decoder) ttl() int64 {
	if !d.has() {
		return TTLDefault
	}
	return int64(d.uint("ttl_ms", MaxTTL))
}

// limit reads how many things an answer may have. nil and zero mean the default.
func (d *decoder) limit(name string, most, otherwise uint64) uint32 {
	return uint32(cmp.Or(d.uint(name, most), otherwise))
}

func (d *decoder) name(r *Request) {
	r.Namespace = d.optional("ns")
	r.Key = d.bytes("key")
}

// names reads a namespace and at least so many keys.
func (d *decoder) names(least uint32, r *Request) {
	r.Namespace = d.optional("ns")
	if !d.must("a list of keys") {
		return
	}
	n, rest, err := msgp.ReadArrayHeaderBytes(d.b)
	if err != nil || n < least || n > MaxKeys {
		if err == nil {
			err = fmt.Errorf("%d", n)
		}
		d.fail("keys", fmt.Sprintf("an array of %d to %d keys", least, MaxKeys), err)
		return
	}
	outer := d.left - 1
	d.b, d.left = rest, int(n)
	for range n {
		r.Keys = append(r.Keys, d.bytes("key"))
	}
	d.left = outer
}

// until reads until_ns, which says when a write is given up.
func (d *decoder) until(r *Request) { r.UntilNS = d.uint("until_ns", math.MaxInt64) }

func (d *decoder) options(r *Request) {
	o := d.uint("options", math.MaxUint32)
	if unknown := Options(o) &^ ops[r.Op].options; unknown != 0 && d.err == nil {
		d.err = Errorf(BadRequest, "%s knows no option %#x", r.Op, uint32(unknown))
	}
	r.Options = Options(o)
}

func (d *decoder) compare(r *Request) { r.Compare = d.uint("compare", math.MaxUint64) }

// means makes it an error if an element or an option has no meaning beside the others of its request.
func (d *decoder) means(something bool, otherwise string) {
	if !something && d.err == nil {
		d.err = &Error{BadRequest, otherwise}
	}
}
