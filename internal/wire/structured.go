package wire

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"sync"
)

// Hello is the body of HELLO.
type Hello struct {
	// Versions that the client speaks, best first.
	Versions []int `msgpack:"v" json:"v"`
	// A name for logs.
	Client string `msgpack:"client,omitempty" json:"client,omitempty"`
	Token  string `msgpack:"token,omitempty" json:"token,omitempty"`
	// The connection's default namespace.
	Namespace string `msgpack:"ns,omitempty" json:"ns,omitempty"`
}

// Welcome is the answer to HELLO.
type Welcome struct {
	Version int    `msgpack:"v" json:"v"`           // chosen from the client's versions
	Node    string `msgpack:"node" json:"node"`     // the sidecar's name
	Server  string `msgpack:"server" json:"server"` // its software version
	Limits  Limits `msgpack:"limits" json:"limits"`
	// Ops that the sidecar serves, of those in the package's Features.
	Features []string `msgpack:"features" json:"features"`
	Epoch    uint64   `msgpack:"epoch" json:"epoch"` // of the sidecar's process
	Hash     Hashing  `msgpack:"hash" json:"hash"`

	Boot BootClock `msgpack:"boot" json:"boot"` // the clock of UntilNS in requests
}

// Serves reports whether a sidecar serves an op of apps, by its answer to HELLO.
func (welcome *Welcome) Serves(o Op) bool {
	return ops[o].is&feature == 0 || slices.Contains(welcome.Features, o.feature())
}

// BootClock is the clock of UntilNS in the requests of apps.
type BootClock struct {
	// kv.BootClockID of the sidecar; "": no clock that a client can read.
	ID string `msgpack:"id" json:"id"`
	// The clock's reading, between the request and its answer.
	NowNS uint64 `msgpack:"now_ns" json:"now_ns"`
}

// Hashing says how to compute the hash of a key that events contain. The hash of the
// namespace's name is seeded with Seed. The hash of the key is seeded with the hash of
// the name. The upper bits of the key's hash are the number of its partition.
type Hashing struct {
	Name       string `msgpack:"name" json:"name"`             // HashName
	Seed       uint64 `msgpack:"seed" json:"seed"`             // the cluster's
	Partitions int    `msgpack:"partitions" json:"partitions"` // a power of two
}

// HashName is the only hash function of this version: 64-bit xxh3.
const HashName = "xxh3"

// Shared is the answer to SHARED. The descriptor of the region comes with its bytes.
type Shared struct {
	Layout  uint64 `msgpack:"layout"`
	Size    int64  `msgpack:"size"` // bytes
	ID      uint64 `msgpack:"id"`   // of the region
	Counter uint64 `msgpack:"counter"`
	NowNS   uint64 `msgpack:"now_ns"` // the sidecar's boot clock, between the request and its answer
	Path    string `msgpack:"path"`   // of the region, for clients that cannot take the descriptor
}

// Watched is the answer to WATCH.
type Watched struct {
	Epoch  uint64 `msgpack:"epoch"` // of the stream
	After  uint64 `msgpack:"after"` // the requested position, unless Reset
	Seq    uint64 `msgpack:"seq"`   // the position to continue after
	Head   uint64 `msgpack:"head"`  // the position of the latest event
	Events Events `msgpack:"events"`
	Reset  bool   `msgpack:"reset"` // the events before Seq are no longer known
	// Upper bound of the sidecar's staleness, milliseconds.
	BehindMS uint32 `msgpack:"behind_ms"`
}

// Limits are the limits of the server.
type Limits struct {
	Key   int `msgpack:"key" json:"key"`     // bytes
	Value int `msgpack:"value" json:"value"` // bytes
	Frame int `msgpack:"frame" json:"frame"` // bytes of a request
	Keys  int `msgpack:"keys" json:"keys"`   // keys of one MGET or DELETE
	// Pending requests of a connection.
	InFlight  int   `msgpack:"in_flight" json:"in_flight"`
	TTLMS     int64 `msgpack:"ttl_ms" json:"ttl_ms"`         // maximum
	TimeoutMS int64 `msgpack:"timeout_ms" json:"timeout_ms"` // default
}

// maxHello is the maximum size of the body of HELLO, in bytes.
const maxHello = 4096

// hello decodes the body of HELLO.
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
	var into Hello // so that the request does not escape to the heap
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
	from := *h // for the same reason as in the decoder
	e.next()
	e.b = append(e.b, MarshalBody(&from)...)
}

var rooms = sync.Pool{New: func() any { return new([]byte) }} // to encode in

// MarshalBody encodes a body: a struct, a slice, or a pointer to one.
func MarshalBody(v any) []byte {
	room := rooms.Get().(*[]byte)
	defer rooms.Put(room)
	of := reflect.Indirect(reflect.ValueOf(v))
	*room = schemaOf(of.Type()).encode((*room)[:0], of)
	return bytes.Clone(*room)
}

// UnmarshalBody decodes a body into the value that v points to, which an error leaves zero. It copies
// the bytes, and checks them with checkMsgpack first, because schema recurses. It ignores what a later
// version has added: the further elements of arrays, and the further fields of maps.
func UnmarshalBody(body []byte, v any) error {
	to := reflect.ValueOf(v).Elem()
	to.SetZero()
	err := checkMsgpack(body)
	if err != nil {
		return err
	}
	if err = schemaOf(to.Type()).decodeBody(body, to); err != nil {
		to.SetZero()
		return fmt.Errorf("msgpack: %w", err)
	}
	return nil
}
