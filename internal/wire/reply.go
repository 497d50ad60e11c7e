package wire

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/tinylib/msgp/msgp"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Reply is an answer of any kind. Its status and the op of its request determine which
// fields it uses; see the package comment. Byte fields alias the frame.
type Reply struct {
	ID uint64
	kv.Attributes
	Status   Status // the short fields stand together: a reply of many keys has an array of replies
	Source   Source
	Why      Why
	Attested bool       // the request has the option Attest, and AsOf, Owner and Epoch are set
	Unsigned bool       // of INCR: the bits of Number are those of a number above 2^63-1
	Read     bool       // of METAGET: the value has been read before this request
	Claim    ClaimState // of METAGET
	Value    []byte
	Version  uint64
	TTLMS    int64  // remaining; zero: no expiry
	AgeMS    uint64 // for which the value may have been outdated, at most, milliseconds
	Token    []byte
	// Number is the sum of INCR. In an answer to METAGET its bits are the number of a claim,
	// an unsigned one.
	Number  int64
	Message []byte
	Items   []Reply // of MGET and DELETE, in the order of the keys
	Body    []byte  // one msgpack value, checked by checkMsgpack

	// Of an attested answer: the owner that attests the value, its process epoch, and as of
	// when on its clock.
	AsOf  uint64
	Owner []byte
	Epoch uint64

	// Event is the version of the change, if that is not the version of the entry: always in
	// an answer to TOUCH or METAGET; zero in one to SET or FILL: they are the same.
	Event uint64

	// Of METAGET.
	Size   uint64 // of the value, bytes, also if it is left out
	IdleMS uint64 // since the value was written
}

// Changed returns the version below which copies of a written key are outdated.
func (r *Reply) Changed() uint64 { return max(r.Version, r.Event) }

// Err returns the answer's error, or nil.
func (r *Reply) Err() error {
	if r.Status.IsError() {
		return &Error{r.Status, string(r.Message)}
	}
	return nil
}

// DecodeReply decodes the answer to a request with the given op into r. It reuses
// r.Items.
func DecodeReply(op Op, frame []byte, r *Reply) error {
	*r = Reply{Items: r.Items[:0]}
	n, b, err := msgp.ReadArrayHeaderBytes(frame)
	if err != nil {
		return fmt.Errorf("an answer is a msgpack array: %w", err)
	}
	d := decoder{b: b, left: int(n)}
	r.ID = d.number("id")
	d.reply(op, r, true)
	if d.err != nil {
		return d.err
	}
	if len(d.b) > 0 {
		return fmt.Errorf("%d bytes follow the answer", len(d.b))
	}
	return nil
}

// DecodeAnswer decodes the answer to q like DecodeReply. Unless the answer is an error,
// it must have one item for each key of q; otherwise DecodeAnswer returns BAD_REQUEST.
func DecodeAnswer(q *Request, frame []byte, r *Reply) error {
	err := DecodeReply(q.Op, frame, r)
	if err == nil && !r.Status.IsError() && len(r.Items) != len(q.Keys) {
		err = Errorf(BadRequest, "%d keys were asked for, the answer is to %d", len(q.Keys), len(r.Items))
		r.Items = r.Items[:0]
	}
	return err
}

// reply reads the status and the fields, and skips the other elements of the array.
func (d *decoder) reply(op Op, r *Reply, whole bool) {
	status := d.number("status")
	if d.err != nil {
		return
	}
	if status >= StatusCount || statusNames[status] == "" {
		if status < uint64(BadRequest) || status > math.MaxUint8 {
			d.err = Errorf(Unsupported, "status %d is unknown", status)
			return
		} // an error that a later version has added
	}
	r.Status = Status(status)
	switch {
	case r.Status.IsError() || r.Status == NotStored:
		r.Message = d.bytes("message")
	case r.Status == Miss && op == OpDelete:
		r.Version = d.uint("version", math.MaxUint64)
	case r.Status == Miss && op == OpMetaGet:
		r.Why = Why(d.uint("why", math.MaxUint8))
		d.claim(r)
		r.TTLMS = int64(d.uint("ttl_ms", math.MaxInt64))
	case r.Status == Miss:
		r.Why = Why(d.uint("why", math.MaxUint8))
		if d.left >= attestedMiss {
			r.Version = d.uint("version", math.MaxUint64)
			r.TTLMS = int64(d.uint("ttl_ms", math.MaxInt64))
			d.attestation(r)
		}
	case r.Status == Lease:
		r.Token = d.bytes("token")
		r.TTLMS = int64(d.uint("ttl_ms", math.MaxInt64))
	case r.Status == Exists, r.Status == Stale && op == OpSet:
		r.Version = d.uint("version", math.MaxUint64)
	default:
		d.result(op, r, whole)
	}
	for ; d.err == nil && d.left > 0; d.left-- {
		rest, err := skipValue(d.b, itemDepth)
		if err != nil {
			d.err = Errorf(BadRequest, "%v", err)
			return
		}
		d.b = rest
	}
}

// result reads the fields after OK or STALE.
func (d *decoder) result(op Op, r *Reply, whole bool) {
	if r.Status == Stale && op != OpGet && op != OpLease && op != OpMetaGet && (op != OpMGet || whole) {
		d.err = Errorf(BadRequest, "%s cannot be answered with STALE", op)
		return
	}
	switch op {
	case OpGet, OpLease:
		d.value(r)
	case OpMGet:
		if whole {
			d.items(op, r)
		} else {
			d.value(r)
		}
	case OpDelete:
		if whole {
			d.items(op, r)
		} else {
			r.Version = d.uint("version", math.MaxUint64)
		}
	case OpSet, OpFill, OpFlush:
		r.Version = d.uint("version", math.MaxUint64)
		if d.left > 0 {
			r.Event = d.uint("event", math.MaxUint64)
		}
	case OpTouch:
		r.Version = d.uint("version", math.MaxUint64)
		r.Event = d.uint("event", math.MaxUint64)
	case OpIncr:
		var beyond int
		r.Number, beyond = d.bits("number")
		r.Unsigned = beyond > 0
		r.Version = d.uint("version", math.MaxUint64)
		r.TTLMS = int64(d.uint("ttl_ms", math.MaxInt64))
	case OpMetaGet:
		d.meta(r)
	case OpPing, OpGoodbye, OpForget, OpLeaving, OpHits:
	default:
		if r.Body = d.raw(); r.Body == nil && d.err == nil {
			d.err = Errorf(BadRequest, "the body is missing")
		}
	}
}

func (d *decoder) value(r *Reply) {
	r.Value = d.bytes("value")
	d.facts(&r.Attributes, &r.Version, &r.TTLMS)
	r.Source = Source(d.uint("source", math.MaxUint8))
	r.AgeMS = d.uint("age_ms", math.MaxUint64)
	d.attestation(r)
}

// leastItem is the length of the shortest item: its head and its status.
const leastItem = 2

// itemDepth is the nesting depth of an item's fields: answer, items, item.
const itemDepth = 3

// attestedMiss is the number of fields after the reason of an attested MISS.
const attestedMiss = 5

// attestation reads which owner attests an answer, and as of when. All of these fields are
// there, or none.
func (d *decoder) attestation(r *Reply) {
	if r.Attested = d.left > 0; r.Attested {
		r.AsOf = d.number("as_of")
		r.Owner = d.bytes("owner")
		r.Epoch = d.number("epoch")
	}
}

func (d *decoder) items(op Op, r *Reply) {
	if !d.must("a list of items") {
		return
	}
	n, rest, err := msgp.ReadArrayHeaderBytes(d.b)
	if err != nil || n > MaxKeys {
		d.fail("items", fmt.Sprintf("an array of at most %d", MaxKeys), err)
		return
	}
	outer := d.left - 1
	d.b = rest
	r.Items = slices.Grow(r.Items, min(int(n), len(rest)/leastItem))
	for range n {
		m, rest, err := msgp.ReadArrayHeaderBytes(d.b)
		if err != nil {
			d.fail("item", "an array", err)
			return
		}
		d.b, d.left = rest, int(m)
		r.Items = append(r.Items, Reply{})
		d.reply(op, &r.Items[len(r.Items)-1], false)
		if d.err != nil {
			return
		}
	}
	d.left = outer
}

// AppendReply appends an answer as a complete frame. The server's hot path uses the
// functions below; tests check that they produce the same bytes.
func AppendReply(dst []byte, op Op, r *Reply) []byte {
	if n := r.sizeBound(op); n > longReply {
		dst = slices.Grow(dst, n) // repeated growth would leave as much garbage
	}
	at := len(dst)
	dst = BeginFrame(dst)
	array := len(dst)
	dst = msgp.AppendUint64(append(dst, 0), r.ID)
	dst, n := appendFields(dst, op, r, true)
	dst[array] = 0x90 | byte(n+1)
	return EndFrame(dst, at)
}

// longReply is the size, in bytes, from which AppendReply allocates the whole reply at
// once.
const longReply = 4 << 10

// replySlack and deleteSlack are upper bounds, in bytes, for the fields of a reply or an item
// without a length of their own: of any op, and of DELETE.
const (
	replySlack  = 128
	deleteSlack = 24
)

// sizeBound returns an upper bound for the encoded size of a reply, in bytes.
func (r *Reply) sizeBound(op Op) int {
	n := replySlack + len(r.Value) + len(r.Message) + len(r.Token) + len(r.Body) + len(r.Owner)
	if op == OpDelete {
		n = deleteSlack + len(r.Message)
	}
	for i := range r.Items {
		n += r.Items[i].sizeBound(op)
	}
	return n
}

// appendFields appends the status and the fields, and returns how many it appended.
func appendFields(dst []byte, op Op, r *Reply, whole bool) ([]byte, int) {
	dst = msgp.AppendUint8(dst, uint8(r.Status))
	switch {
	case r.Status.IsError() || r.Status == NotStored:
		return msgp.AppendStringFromBytes(dst, r.Message), 2
	case r.Status == Miss && op == OpDelete, r.Status == Exists, r.Status == Stale && op == OpSet:
		return msgp.AppendUint64(dst, r.Version), 2
	case r.Status == Miss && op == OpMetaGet:
		dst = appendClaim(msgp.AppendUint8(dst, uint8(r.Why)), r)
		return msgp.AppendUint64(dst, uint64(r.TTLMS)), 5
	case r.Status == Miss:
		dst = msgp.AppendUint8(dst, uint8(r.Why))
		if !r.Attested {
			return dst, 2
		}
		dst = msgp.AppendUint64(dst, r.Version)
		return appendAttestation(msgp.AppendUint64(dst, uint64(r.TTLMS)), r), 7
	case r.Status == Lease:
		dst = msgp.AppendBytes(dst, r.Token)
		return msgp.AppendUint64(dst, uint64(r.TTLMS)), 3
	}
	switch op {
	case OpGet, OpLease, OpMGet:
		if op == OpMGet && whole {
			return appendItems(dst, op, r.Items), 2
		}
		dst = msgp.AppendBytes(dst, r.Value)
		return appendMeta(dst, r), r.valueFields()
	case OpDelete:
		if whole {
			return appendItems(dst, op, r.Items), 2
		}
		return msgp.AppendUint64(dst, r.Version), 2
	case OpSet, OpFill, OpFlush, OpTouch:
		if dst = msgp.AppendUint64(dst, r.Version); r.Event == 0 && op != OpTouch {
			return dst, 2
		}
		return msgp.AppendUint64(dst, r.Event), 3
	case OpIncr:
		dst = msgp.AppendUint64(appendBits(dst, r.Number, r.Unsigned), r.Version)
		return msgp.AppendUint64(dst, uint64(r.TTLMS)), 4
	case OpMetaGet:
		return appendMetaGet(dst, r), 1 + metaFields
	case OpPing, OpGoodbye, OpForget, OpLeaving, OpHits:
		return dst, 1
	}
	return append(dst, r.Body...), 2
}

// valueFields returns the number of elements in an answer with a value, counted from the
// status.
func (r *Reply) valueFields() int {
	if r.Attested {
		return 10
	}
	return 7
}

func appendItems(dst []byte, op Op, items []Reply) []byte {
	dst = msgp.AppendArrayHeader(dst, uint32(len(items)))
	for i := range items {
		dst = AppendItem(dst, op, &items[i])
	}
	return dst
}

// AppendItem appends one item of an answer to MGET or DELETE.
func AppendItem(dst []byte, op Op, r *Reply) []byte {
	at := len(dst)
	dst, n := appendFields(append(dst, 0), op, r, false)
	dst[at] = 0x90 | byte(n)
	return dst
}

// appendMeta appends the fields after the value.
func appendMeta(dst []byte, r *Reply) []byte {
	at := len(dst)
	dst = slices.Grow(dst, 5*longestUint)[:at+5*longestUint]
	at = putUint(dst, putFacts(dst, at, r.Attributes, r.Version, r.TTLMS), uint64(r.Source))
	dst = dst[:putUint(dst, at, r.AgeMS)]
	if r.Attested {
		dst = appendAttestation(dst, r)
	}
	return dst
}

func appendAttestation(dst []byte, r *Reply) []byte {
	dst = msgp.AppendUint64(dst, r.AsOf)
	dst = msgp.AppendStringFromBytes(dst, r.Owner)
	return msgp.AppendUint64(dst, r.Epoch)
}

// OpenValue and CloseValue build an answer whose value is appended directly by a store,
// between the two calls. The bytes are equal to those of AppendReply.

// binHead is the space that OpenValue reserves for the msgpack head of the value. A
// value of 256 bytes or more needs a longer head and is moved.
const binHead = 2

// openRoom is the most that OpenValue appends, in bytes.
const openRoom = LengthSize + 1 + longestUint + 1 + binHead

// OpenItems appends the head of an answer to MGET or DELETE, up to the items. The caller
// then appends the announced number of items and ends the frame.
func OpenItems(dst []byte, id uint64, items int) []byte {
	dst = append(BeginFrame(dst), 0x93)
	dst = msgp.AppendUint64(dst, id)
	return msgp.AppendArrayHeader(append(dst, byte(OK)), uint32(items))
}

// OpenValue appends the head of an OK answer to GET, up to the value. If item is true,
// it appends the head of an item of MGET. attested says whether the answer will be
// attested.
func OpenValue(dst []byte, id uint64, item, attested bool) []byte {
	array := byte(0x97)
	if attested {
		array = 0x9a
	}
	if item {
		return append(dst, array, byte(OK), 0, 0)
	}
	at := len(dst)
	dst = slices.Grow(dst, openRoom)[:at+openRoom]
	dst[at+LengthSize] = array + 1 // EndFrame writes the bytes before it
	at = putUint(dst, at+LengthSize+1, id)
	dst[at] = byte(OK)
	return dst[:at+1+binHead]
}

// CloseValue completes the answer that OpenValue began. value is the length of dst after
// OpenValue; the bytes from there to the end of dst are the value. CloseValue appends
// the other fields of r. The caller ends the frame.
func CloseValue(dst []byte, value int, r *Reply) []byte {
	n := len(dst) - value
	head := dst[value-binHead:]
	switch {
	case n <= math.MaxUint8:
		head[0], head[1] = 0xc4, byte(n)
	case n <= math.MaxUint16:
		dst = append(dst, 0)
		copy(dst[value+1:], dst[value:])
		head = dst[value-binHead:]
		head[0] = 0xc5
		binary.BigEndian.PutUint16(head[1:], uint16(n))
	default:
		dst = append(dst, 0, 0, 0)
		copy(dst[value+3:], dst[value:])
		head = dst[value-binHead:]
		head[0] = 0xc6
		binary.BigEndian.PutUint32(head[1:], uint32(n))
	}
	return appendMeta(dst, r)
}

// AppendError appends an error as a complete frame.
func AppendError(dst []byte, id uint64, e *Error) []byte {
	return AppendReply(dst, OpPing, &Reply{ID: id, Status: e.Status, Message: []byte(e.Message)})
}

// ErrorReply returns the answer that carries e.
func ErrorReply(e *Error) Reply { return Reply{Status: e.Status, Message: []byte(e.Message)} }

// BodyReply returns an answer with the body v.
func BodyReply(v any) Reply { return Reply{Body: MarshalBody(v)} }
