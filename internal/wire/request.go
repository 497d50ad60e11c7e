package wire

import (
	"math"

	"github.com/tinylib/msgp/msgp"

	"github.com/cachesidecar/cachesidecar/internal/kv"
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
	kv.Attributes
	Mode Mode
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
	By      uint64 // between sidecars: the number of the app that has asked, see quota.App; zero: the sidecar itself

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
func (q *Request) Has(o Options) bool { return q.Options&o != 0 }

// Writes reports whether a request changes its key, and must not be executed after it was given up.
func (q *Request) Writes() bool {
	f := &ops[q.Op]
	return f.is&writes != 0 && !q.Has(Abandon) || f.is&writesIf != 0 && q.Has(f.with)
}

// OnlyReads reports whether a request of a key changes nothing: BUSY may replace its answer, and no app misses it once
// the connection has ended.
func (q *Request) OnlyReads() bool { return q.Op.Reads() && !q.Writes() }

// Subjects returns how many keys a request reads or writes.
func (q *Request) Subjects() int {
	switch f := &ops[q.Op]; {
	case f.is&oneKey != 0:
		return 1
	case f.is&manyKeys != 0:
		return len(q.Keys)
	}
	return 0
}

// Need returns what the caller of a request must be entitled to.
func (q *Request) Need() Need {
	f := &ops[q.Op]
	if q.Has(f.with) {
		return f.then
	}
	return f.need
}

// Clone returns a copy whose bytes are its own, in one allocation.
func (q *Request) Clone() Request {
	n := *q
	size := len(q.Namespace) + len(q.Key) + len(q.Value) + len(q.Token) + len(q.Body)
	for _, k := range q.Keys {
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
	n.Namespace, n.Key, n.Value = clone(q.Namespace), clone(q.Key), clone(q.Value)
	n.Token, n.Body = clone(q.Token), clone(q.Body)
	n.Keys = nil
	for _, k := range q.Keys {
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
			return Errorf(Unsupported, "op %d is unknown; ops 1 to %d are known", op, opsOfApps-1)
		}
		r.Op = Op(op)
	}
	r.TimeoutMS = uint32(d.uint("timeout_ms", MaxTimeout))
	if d.fields(r); d.left > 0 {
		r.By = d.uint("by", math.MaxUint64)
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
		d.set(r)
	case OpDelete:
		d.delete(r)
	case OpTouch:
		d.name(r)
		r.TTLMS = d.ttl()
		d.options(r)
		d.until(r)
	case OpIncr:
		d.incr(r)
	case OpMetaGet:
		d.metaGet(r)
	case OpFill:
		d.name(r)
		r.Token = d.bytes("token")
		r.Value = d.optional("value")
		r.TTLMS = d.ttl()
		d.attributes(&r.Attributes)
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

func (d *decoder) set(r *Request) {
	d.name(r)
	r.Value = d.bytes("value")
	r.TTLMS = d.ttl()
	d.attributes(&r.Attributes)
	r.Mode = Mode(d.uint("mode", uint64(modeCount)-1))
	d.compare(r)
	d.options(r)
	d.until(r)
	d.means(!r.Has(Create) || r.Mode.IsConcat(), "the option create of SET is for the modes append and prepend")
	d.means(!r.Has(StaleOK) || r.Mode == ModeCAS, "the option stale_ok of SET is for the mode that compares")
}

func (d *decoder) delete(r *Request) {
	d.names(1, r)
	d.options(r)
	r.ReplicaLagMS = uint32(d.uint("replica_lag_ms", MaxTimeout))
	d.until(r)
	d.compare(r)
	r.StaleMS = uint32(d.uint("stale_ms", MaxTimeout))
	d.means(r.Compare == 0 || len(r.Keys) == 1, "compare is for the deletion of one key, not of several")
	d.means(r.StaleMS == 0 || r.Has(Soft), "stale_ms is for a deletion with the option soft")
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
		e.attributes(&r.Attributes)
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
		e.metaGet(r)
	case OpFill:
		e.name(r)
		e.bytes(r.Token)
		if r.Value == nil && r.Has(Abandon) {
			e.skip()
		} else {
			e.bytes(r.Value)
		}
		e.ttl(r.TTLMS)
		e.attributes(&r.Attributes)
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
	e.optional(r.By)
	return EndFrame(e.finish(), at)
}
