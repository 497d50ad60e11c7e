package load

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Sidecar is the sidecar's protocol. It sends GETs, or SETs if Value is not nil.
type Sidecar struct {
	Namespace string // default: the server's
	Token     string // sent to the server; default: none
	KeySize   int    // in bytes, at least 16
	Value     []byte
}

// Key appends key number n with a length of size bytes: a prefix and the digits of n.
func Key(dst []byte, n uint64, size int) []byte {
	at := len(dst)
	for range size {
		dst = append(dst, 'k')
	}
	digits := dst[at+size-16:]
	for i := 15; i > 0; i-- {
		digits[i] = byte('0' + n%10)
		n /= 10
	}
	return dst
}

// Greet sends HELLO and checks the answer.
func (p Sidecar) Greet(nc net.Conn) error {
	q := wire.Request{Op: wire.OpHello, Hello: wire.Hello{
		Versions: wire.Versions, Client: "load", Token: p.Token, Namespace: p.Namespace,
	}}
	if _, err := nc.Write(wire.AppendRequest(nil, &q)); err != nil {
		return err
	}
	var head [wire.LengthSize]byte
	if _, err := io.ReadFull(nc, head[:]); err != nil {
		return fmt.Errorf("no answer to HELLO: %w", err)
	}
	frame := make([]byte, wire.FrameLength(head[:]))
	if _, err := io.ReadFull(nc, frame); err != nil {
		return fmt.Errorf("no answer to HELLO: %w", err)
	}
	var r wire.Reply
	if err := wire.DecodeReply(wire.OpHello, frame, &r); err != nil {
		return err
	}
	return r.Err()
}

// firstID makes all ids five bytes long, so that the status of a reply is always at the
// same offset.
const firstID = 1 << 20

// Append appends a GET or a SET.
func (p Sidecar) Append(dst []byte, i int, key uint64) []byte {
	q := wire.Request{ID: firstID + uint64(i), Op: wire.OpGet, Key: Key(nil, key, p.KeySize), TTLMS: wire.TTLDefault}
	if p.Value != nil {
		q.Op, q.Value = wire.OpSet, p.Value
	}
	return wire.AppendRequest(dst, &q)
}

// statusAt is the offset of a reply's status: after the length, the array's head and the
// id.
const statusAt = wire.LengthSize + 1 + 5

// Count counts replies.
func (p Sidecar) Count(b []byte, want int) (replies, hits, size int, err error) {
	for replies < want && len(b)-size > statusAt {
		end := size + wire.LengthSize + int(binary.BigEndian.Uint32(b[size:]))
		if end > len(b) {
			break
		}
		switch s := wire.Status(b[size+statusAt]); {
		case s == wire.OK:
			hits++
		case s.IsError():
			return replies, hits, size, fmt.Errorf("the sidecar answers %s", s)
		}
		replies++
		size = end
	}
	return replies, hits, size, nil
}
