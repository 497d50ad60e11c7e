package wire

import (
	"cmp"
	"fmt"
	"math"

	"github.com/tinylib/msgp/msgp"
)

// Request is a request of any kind. Each op uses the fields in its line of the package
// comment. Byte fields alias the frame.
type Request struct {
	ID        uint64
	Op        Op
	TimeoutMS uint32 // zero: the server's default
	Namespace []byte // nil: the connection's default
	Key       []byte // of KEYS: the prefix
	Keys      [][]byte
	Value     []byte
	TTLMS     int64 // TTLDefault; zero: no expiry
	Flags     uint32
	Mode      Mode
	// The version of the present value, or the write is not executed. Zero compares only
	// with ModeCAS, where the number of a claim may stand in its place.
	Compare      uint64
	Options      Options
	Delta        int64  // of INCR; with Unsigned its bits are those of an unsigned number
	Create       bool   // INCR: store Initial if the key is absent
	Initial      int64  // like Delta
	StaleMS      uint32 // of DELETE with Soft: how long the value stays; zero: as the namespace says
	LeaseMS      uint32 // of METAGET: how long a claim lasts; zero: as the namespace says
	RenewMS      uint32 // of METAGET: a value with less time left may be claimed; zero: none may
	Token        []byte // of FILL; of KEYS: the cursor
	ReplicaLagMS uint32
	Epoch        uint64
	Seq          uint64
	WaitMS       uint32 // of WATCH: how long the answer may wait for an event
	Limit        uint32 // of KEYS, HOT and SLOW: how many keys or calls
	Hits         Hits
	// On the receiver's boot clock: a write is not executed after this time; zero: no limit.
	UntilNS uint64
	Hello   Hello
	Body    []byte // of an op between sidecars: one msgpack value, checked by checkMsgpack

	// App is not part of the message: it is never encoded, and DecodeRequest leaves it
	// false. The sidecar sets it for a request of an app on its own host.
	App bool
	// Nor are these: the connection whose end gives a write up that still waits, the shared
	// memory that the app reads, a *shm.Region (nil: none), and what is known of the owner.
	Conn   interface{ Ended() bool }
	Region any
	Heard  bool // the owner of a read's key has answered meanwhile, though not the read: it is not silent
}

// TTLDefault means the TTL of the namespace.
const TTLDefault = -1

// Has reports whether an option is set.
func (r *Request) Has(o Options) bool { return r.Options&o != 0 }

// Clone returns a copy whose bytes are its own, in one allocation.
func (r *Request) Clone() Request {
	n := *r
	size := len(r.Namespace) + len(r.Key) + len(r.Value) + len(r.Token) + len(r.Body)
	for _, k := range r.Keys {
		size += len(k)
	}
	piece := make([]byte, 0, size)
	clone := func(b []byte) []byte {
		if b == nil {
			return nil
		}
		at := len(piece)
		piece = append(piece, b...)
		return piece[at:len(piece):len(piece)]
	}
	n.Namespace, n.Key, n.Value = clone(r.Namespace), clone(r.Key), clone(r.Value)
	n.Token, n.Body = clone(r.Token), clone(r.Body)
	n.Keys = nil
	for _, k := range r.Keys {
		n.Keys = append(n.Keys, clone(k))
	}
	return n
}

// DecodeRequest decodes the array of a frame into r. It reuses r.Keys. An error is the
// client's fault: an *Error with BadRequest or Unsupported. After an error, r.ID and
// r.Op have the values that could be read, or zero.
func DecodeRequest(frame []byte, r *Request) *Error {
	keys := r.Keys[:0]
	*r = Request{} // in place: a literal with fields would be copied
	r.Keys, r.TTLMS = keys, TTLDefault
	if decodeShort(frame, r) {
		return nil
	}
	return decodeAny(frame, r)
}

// decodeAny decodes a request of any op and form. In r, only Keys and TTLMS are set.
func decodeAny(frame []byte, r *Request) *Error {
	n, b, err := msgp.ReadArrayHeaderBytes(frame)
	if err != nil {
		return Errorf(BadRequest, "a request is a msgpack array [id, op, timeout_ms, …]: %v", err)
	}
	d := decoder{b: b, left: int(n)}
	r.ID = d.number("id")
	op := d.number("op")
	if d.err == nil {
		if op >= uint64(OpCount) || !Op(op).Known() {
			return Errorf(Unsupported, "op %d is unknown; ops 1 to %d are known", op, lastClientOp)
		}
		r.Op = Op(op)
	}
	r.TimeoutMS = uint32(d.uint("timeout_ms", MaxTimeout))
	if d.fields(r); d.err == nil {
		d.err = r.contradiction()
	}
	switch {
	case d.err != nil:
		return d.err
	case d.left > 0:
		return Errorf(BadRequest, "%s has %d elements too many", r.Op, d.left)
	case len(d.b) > 0:
		return Errorf(BadRequest, "%d bytes follow the array", len(d.b))
	}
	return nil
}

// fields reads the fields of a request after its op and timeout.
func (d *decoder) fields(r *Request) {
	switch r.Op {
	case OpHello:
		d.hello(&r.Hello)
	case OpPing, OpMembers, OpLeaving, OpShared:
	case OpHits:
		d.hits(r)
	case OpGet, OpLease:
		d.name(r)
		d.options(r)
	case OpMGet:
		d.names(1, r)
		d.options(r)
	case OpSet:
		d.name(r)
		r.Value = d.bytes("value")
		r.TTLMS = d.ttl()
		r.Flags = uint32(d.uint("flags", math.MaxUint32))
		r.Mode = Mode(d.uint("mode", uint64(modeCount)-1))
		d.compare(r)
		d.options(r)
		d.until(r)
	case OpDelete:
		d.names(1, r)
		d.options(r)
		r.ReplicaLagMS = uint32(d.uint("hold_ms", MaxTimeout))
		d.until(r)
		d.compare(r)
		r.StaleMS = uint32(d.uint("stale_ms", MaxTimeout))
	case OpTouch:
		d.name(r)
		r.TTLMS = d.ttl()
		d.options(r)
		d.until(r)
	case OpIncr:
		d.incr(r)
	case OpMetaGet:
		d.name(r)
		r.TTLMS = d.ttl()
		d.options(r)
		d.until(r)
		r.LeaseMS = uint32(d.uint("lease_ms", MaxTimeout))
		r.RenewMS = uint32(d.uint("renew_ms", MaxTimeout))
	case OpFill:
		d.name(r)
		r.Token = d.bytes("token")
		r.Value = d.optional("value")
		r.TTLMS = d.ttl()
		r.Flags = uint32(d.uint("flags", math.MaxUint32))
		d.options(r)
		d.until(r)
		if r.Value == nil && !r.Has(Abandon) && d.err == nil {
			d.err = Errorf(BadRequest, "value is missing: give one, or the option abandon")
		}
	case OpFlush:
		r.Namespace = d.optional("ns")
		d.options(r)
	case OpStats, OpDrain:
		d.options(r)
	case OpRing:
		d.name(r)
	case OpWatch:
		r.Namespace = d.optional("ns")
		d.options(r)
		r.Epoch = d.uint("epoch", math.MaxUint64)
		r.Seq = d.uint("seq", math.MaxUint64)
		r.WaitMS = uint32(d.uint("wait_ms", MaxTimeout))
	case OpVerify:
		r.WaitMS = uint32(d.uint("duration_ms", MaxVerify))
	case OpForget:
		r.Key = d.bytes("node")
	case OpKeys:
		r.Namespace = d.optional("ns")
		r.Key = d.optional("prefix")
		r.Token = d.optional("cursor")
		r.Limit = d.limit("limit", MaxKeysPage, defaultKeys)
	case OpHot:
		r.Namespace = d.optional("ns")
		r.Limit = d.limit("n", MaxHot, defaultHot)
		d.options(r)
	case OpSlow:
		r.Namespace = d.optional("ns")
		r.Limit = d.limit("n", MaxSlow, defaultSlow)
		d.options(r)
	default: // an op between sidecars
		if r.Op.Peer() {
			r.Body = d.raw()
		}
	}
}

// AppendRequest appends a request as a whole frame.
func AppendRequest(dst []byte, r *Request) []byte {
	at := len(dst)
	dst = BeginFrame(dst)
	// Trailing elements with their default are left out.
	e := encoder{b: msgp.AppendUint64(append(dst, 0), r.ID), array: len(dst)}
	e.uint(uint64(r.Op))
	e.uint(uint64(r.TimeoutMS))
	switch r.Op {
	case OpHello:
		e.hello(&r.Hello)
	case OpGet, OpLease:
		e.name(r)
		e.optional(uint64(r.Options))
	case OpMGet:
		e.names(r)
		e.optional(uint64(r.Options))
	case OpSet:
		e.name(r)
		e.bytes(r.Value)
		e.ttl(r.TTLMS)
		e.optional(uint64(r.Flags))
		e.optional(uint64(r.Mode))
		e.optional(r.Compare)
		e.optional(uint64(r.Options))
		e.optional(r.UntilNS)
	case OpHits:
		e.hits(r)
	case OpDelete:
		e.names(r)
		e.optional(uint64(r.Options))
		e.optional(uint64(r.ReplicaLagMS))
		e.optional(r.UntilNS)
		e.optional(r.Compare)
		e.optional(uint64(r.StaleMS))
	case OpTouch:
		e.name(r)
		e.ttl(r.TTLMS)
		e.optional(uint64(r.Options))
		e.optional(r.UntilNS)
	case OpIncr:
		e.incr(r)
	case OpMetaGet:
		e.name(r)
		e.ttl(r.TTLMS)
		e.optional(uint64(r.Options))
		e.optional(r.UntilNS)
		e.optional(uint64(r.LeaseMS))
		e.optional(uint64(r.RenewMS))
	case OpFill:
		e.name(r)
		e.bytes(r.Token)
		if r.Value == nil && r.Has(Abandon) {
			e.skip()
		} else {
			e.bytes(r.Value)
		}
		e.ttl(r.TTLMS)
		e.optional(uint64(r.Flags))
		e.optional(uint64(r.Options))
		e.optional(r.UntilNS)
	case OpFlush:
		e.namespace(r)
		e.optional(uint64(r.Options))
	case OpStats, OpDrain:
		e.optional(uint64(r.Options))
	case OpRing:
		e.name(r)
	case OpWatch:
		e.namespace(r)
		e.optional(uint64(r.Options))
		e.optional(r.Epoch)
		e.optional(r.Seq)
		e.optional(uint64(r.WaitMS))
	case OpVerify:
		e.optional(uint64(r.WaitMS))
	case OpForget:
		e.bytes(r.Key)
	case OpKeys:
		e.namespace(r)
		e.maybe(r.Key)
		e.maybe(r.Token)
		e.optional(uint64(r.Limit))
	case OpHot, OpSlow:
		e.namespace(r)
		e.optional(uint64(r.Limit))
		e.optional(uint64(r.Options))
	default:
		if r.Body != nil {
			e.next()
			e.b = append(e.b, r.Body...)
		}
	}
	return EndFrame(e.finish(), at)
}

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
	if unknown := Options(o) &^ allowed[r.Op]; unknown != 0 && d.err == nil {
		d.err = Errorf(BadRequest, "%s knows no option %#x", r.Op, uint32(unknown))
	}
	r.Options = Options(o)
}
