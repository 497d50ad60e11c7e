package surge

import (
	"encoding/binary"

	"github.com/cachesidecar/cachesidecar/internal/load"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Requests builds requests.
type Requests interface {
	// Append appends request number n with an id.
	Append(dst []byte, id uint64, n uint64) []byte
}

// All ids are five bytes long, so that the id and the status are always at the same
// place.
const (
	firstID  = 1 << 20
	idAt     = wire.LengthSize + 1 + 1 // after the length, the array's head and the id's
	statusAt = idAt + 4
	headSize = statusAt + 1
)

// Prebuilt is requests that are built beforehand, and sent one after the other.
type Prebuilt [][]byte

// Append appends a request.
func (p Prebuilt) Append(dst []byte, id uint64, n uint64) []byte {
	at := len(dst)
	dst = append(dst, p[n%uint64(len(p))]...)
	binary.BigEndian.PutUint32(dst[at+idAt:], uint32(id))
	return dst
}

// Mix builds n GETs and SETs of keys 0 to keys-1. One request in every is a SET, of the key
// of the GETs before it.
func Mix(n, every, keys, keySize int, value []byte) (list Prebuilt) {
	for i := range n {
		p := load.Sidecar{KeySize: keySize}
		if i%every == every-1 {
			p.Value = value
		}
		list = append(list, p.Append(nil, i, uint64(i/every*7919)%uint64(keys))) // 7919 is prime: the keys are mixed
	}
	return list
}

// Misses are GETs, each of a key that was not asked for before.
type Misses struct {
	KeySize int
	First   uint64 // key
}

// Append appends a request.
func (m Misses) Append(dst []byte, id uint64, n uint64) []byte {
	at := len(dst)
	dst = load.Sidecar{KeySize: m.KeySize}.Append(dst, 0, m.First+n)
	binary.BigEndian.PutUint32(dst[at+idAt:], uint32(id))
	return dst
}

func appendHello(dst []byte, id uint64, namespace string) []byte {
	return wire.AppendRequest(dst, &wire.Request{ID: id, Op: wire.OpHello, Hello: wire.Hello{
		Versions: wire.Versions, Client: "surge", Namespace: namespace,
	}})
}
