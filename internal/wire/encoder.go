package wire

import "github.com/tinylib/msgp/msgp"

// encoder writes an array of fewer than 16 elements and leaves out the nils at its end.
type encoder struct {
	b     []byte
	array int // index of the array's head, one byte
	n     int // elements written after the id
	nils  int // pending nils: written if another element follows, otherwise left out
}

func (e *encoder) skip() { e.nils++ }

func (e *encoder) next() {
	for ; e.nils > 0; e.nils-- {
		e.b = msgp.AppendNil(e.b)
		e.n++
	}
	e.n++
}

func (e *encoder) uint(v uint64) { e.next(); e.b = msgp.AppendUint64(e.b, v) }

func (e *encoder) optional(v uint64) {
	if v == 0 {
		e.skip()
	} else {
		e.uint(v)
	}
}

func (e *encoder) ttl(ms int64) {
	if ms < 0 {
		e.skip()
	} else {
		e.uint(uint64(ms))
	}
}

// maybe writes bytes; nil is left out.
func (e *encoder) maybe(v []byte) {
	if v == nil {
		e.skip()
	} else {
		e.bytes(v)
	}
}

func (e *encoder) bytes(v []byte) { e.next(); e.b = msgp.AppendBytes(e.b, v) }

func (e *encoder) namespace(r *Request) {
	if r.Namespace == nil {
		e.skip()
	} else {
		e.next()
		e.b = msgp.AppendStringFromBytes(e.b, r.Namespace)
	}
}

func (e *encoder) name(r *Request) {
	e.namespace(r)
	e.bytes(r.Key)
}

func (e *encoder) names(r *Request) {
	e.namespace(r)
	e.next()
	e.b = msgp.AppendArrayHeader(e.b, uint32(len(r.Keys)))
	for _, k := range r.Keys {
		e.b = msgp.AppendBytes(e.b, k)
	}
}

func (e *encoder) finish() []byte {
	e.b[e.array] = 0x90 | byte(e.n+1)
	return e.b
}

// appendInt writes a number that is not negative as unsigned, in the shortest form.
func appendInt(dst []byte, v int64) []byte {
	if v >= 0 {
		return msgp.AppendUint64(dst, uint64(v))
	}
	return msgp.AppendInt64(dst, v)
}
