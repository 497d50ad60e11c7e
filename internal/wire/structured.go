package wire

import (
	"bytes"
	"fmt"
	"reflect"
	"sync"

	"github.com/vmihailenco/msgpack/v5"
)

// Hello is the body of a HELLO.
type Hello struct {
	Versions  []int  `msgpack:"v" json:"v"`                               // that the client speaks, best first
	Client    string `msgpack:"client,omitempty" json:"client,omitempty"` // a name for logs
	Token     string `msgpack:"token,omitempty" json:"token,omitempty"`
	Namespace string `msgpack:"ns,omitempty" json:"ns,omitempty"` // the connection's default
}

// Welcome answers a HELLO.
type Welcome struct {
	Version  int      `msgpack:"v" json:"v"`           // chosen among the client's
	Node     string   `msgpack:"node" json:"node"`     // the sidecar's name
	Server   string   `msgpack:"server" json:"server"` // its software version
	Limits   Limits   `msgpack:"limits" json:"limits"`
	Features []string `msgpack:"features" json:"features"` // ops that it serves, in lower case
	Epoch    uint64   `msgpack:"epoch" json:"epoch"`       // of the sidecar's process
	Hash     Hashing  `msgpack:"hash" json:"hash"`

	Boot BootClock `msgpack:"boot" json:"boot"` // by which writes are refused that were given up
}

// BootClock is the clock that UntilNS of an app's requests is on.
type BootClock struct {
	ID    string `msgpack:"id" json:"id"`         // kv.BootClockID of the sidecar; "" is none that a client could read
	NowNS uint64 `msgpack:"now_ns" json:"now_ns"` // its reading, between the request and its answer
}

// Hashing is how a key's hash, as events have it, comes about: the hash of the
// key, seeded with the hash of its namespace's name, which is seeded with Seed.
// The leading bits of it that number the partitions name the key's partition.
type Hashing struct {
	Name       string `msgpack:"name" json:"name"`             // HashName
	Seed       uint64 `msgpack:"seed" json:"seed"`             // of the cluster
	Partitions int    `msgpack:"partitions" json:"partitions"` // a power of two
}

// HashName is the one hash that this version knows: 64-bit xxh3.
const HashName = "xxh3"

// Watched answers WATCH.
type Watched struct {
	Epoch    uint64 `msgpack:"epoch"` // of the stream
	After    uint64 `msgpack:"after"` // the place asked for, unless Reset
	Seq      uint64 `msgpack:"seq"`   // the place after which to go on
	Head     uint64 `msgpack:"head"`  // the place of the latest event
	Events   Events `msgpack:"events"`
	Reset    bool   `msgpack:"reset"`     // what lies before Seq is not known any more
	BehindMS uint32 `msgpack:"behind_ms"` // what the sidecar may be behind the truth, at most
}

// Limits tells a client what the server takes.
type Limits struct {
	Key       int   `msgpack:"key" json:"key"`               // bytes
	Value     int   `msgpack:"value" json:"value"`           // bytes
	Frame     int   `msgpack:"frame" json:"frame"`           // bytes of a request
	Keys      int   `msgpack:"keys" json:"keys"`             // of MGET and DELETE
	InFlight  int   `msgpack:"in_flight" json:"in_flight"`   // requests of a connection that wait
	TTLMS     int64 `msgpack:"ttl_ms" json:"ttl_ms"`         // longest
	TimeoutMS int64 `msgpack:"timeout_ms" json:"timeout_ms"` // default
}

// Member is one line of MEMBERS.
type Member struct {
	Node    string `msgpack:"node" json:"node"`
	Address string `msgpack:"address" json:"address"`
	State   string `msgpack:"state" json:"state"`
	Epoch   string `msgpack:"epoch" json:"epoch"`

	Weight     uint32 `msgpack:"weight" json:"weight"`         // its part of the keys, relative to others'
	Partitions int    `msgpack:"partitions" json:"partitions"` // that the ring gives it
	Why        string `msgpack:"why" json:"why"`               // of a state that is no good one
}

// Place answers RING.
type Place struct {
	Partition int    `msgpack:"partition" json:"partition"`
	Owner     string `msgpack:"owner" json:"owner"`   // by the ring
	Holder    string `msgpack:"holder" json:"holder"` // in fact; empty while nobody holds it
}

// maxHello bounds the body of a HELLO, in bytes.
const maxHello = 4096

// hello decodes the body of a HELLO.
func (d *decoder) hello(h *Hello) {
	body := d.raw()
	if d.err != nil {
		return
	}
	if body == nil {
		d.err = Errorf(BadRequest, "HELLO takes a map {v, client, token, ns}")
		return
	}
	if len(body) > maxHello {
		d.err = Errorf(BadRequest, "HELLO has a body of %d bytes, at most %d are taken", len(body), maxHello)
		return
	}
	var into Hello // so that the request itself does not escape to the heap
	err := UnmarshalBody(body, &into)
	*h = into
	if err != nil {
		d.err = Errorf(BadRequest, "HELLO takes a map {v, client, token, ns}: %v", err)
		return
	}
	for _, s := range []struct{ name, value string }{{"client", h.Client}, {"token", h.Token}} {
		if len(s.value) > MaxNameLen {
			d.err = Errorf(BadRequest, "HELLO: %s has %d bytes, at most %d are taken", s.name, len(s.value), MaxNameLen)
		}
	}
}

func (e *encoder) hello(h *Hello) {
	from := *h // as above
	body, err := MarshalBody(&from)
	if err != nil {
		panic("wire: " + err.Error()) // strings and numbers always encode
	}
	e.next()
	e.b = append(e.b, body...)
}

var encoders = sync.Pool{New: func() any { return newEncoder() }}

type bodyEncoder struct {
	buf bytes.Buffer
	enc *msgpack.Encoder
}

func newEncoder() *bodyEncoder {
	e := &bodyEncoder{}
	e.enc = msgpack.NewEncoder(&e.buf)
	e.enc.UseCompactInts(true)
	e.enc.SetSortMapKeys(true)
	return e
}

// MarshalBody encodes a body that is a map or an array of maps.
func MarshalBody(v any) ([]byte, error) {
	e := encoders.Get().(*bodyEncoder)
	defer encoders.Put(e)
	e.buf.Reset()
	if err := e.enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.Clone(e.buf.Bytes()), nil
}

// UnmarshalBody decodes a body into what v points to. It walks the bytes first,
// since the decoder recurses and sizes its slices by what the bytes announce, and
// refuses nil where a text must be.
func UnmarshalBody(body []byte, v any) error {
	if err := Walk(body); err != nil {
		return err
	}
	if _, err := shapeOf(reflect.TypeOf(v).Elem()).check(body); err != nil {
		return fmt.Errorf("msgpack: %w", err)
	}
	d := msgpack.GetDecoder()
	defer msgpack.PutDecoder(d)
	d.Reset(bytes.NewReader(body))
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("msgpack: %w", err)
	}
	return nil
}
