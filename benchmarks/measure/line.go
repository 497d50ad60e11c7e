package measure

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/load"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// line is a connection to a sidecar with one request in flight, or many for one key. The values that it sends
// begin with a number. One goroutine uses it.
type line struct {
	nc    net.Conn
	in    *bufio.Reader
	size  int // of keys
	value []byte
	out   []byte
	frame []byte
	reply wire.Reply
}

// lineTimeout is how long a request may take, in ms. It is longer than anything that is
// measured here, so that no delay goes unseen.
const lineTimeout = 5000

// openLine connects to a sidecar, for a namespace; empty: the default.
func (b *Bench) openLine(s *peers.Server, namespace string, p record.Parameters) *line {
	nc := b.connect(s.Dial, load.Sidecar{Namespace: namespace})
	return &line{nc: nc, in: bufio.NewReader(nc), size: p.KeySize, value: make([]byte, max(8, p.ValueSize))}
}

// do sends a request and reads the answer, which is valid until the next call.
func (l *line) do(q *wire.Request) (*wire.Reply, error) {
	q.ID, q.TimeoutMS = 1, lineTimeout
	_ = l.nc.SetDeadline(time.Now().Add(2 * lineTimeout * time.Millisecond))
	l.out = wire.AppendRequest(l.out[:0], q)
	if _, err := l.nc.Write(l.out); err != nil {
		return nil, err
	}
	if err := l.read(); err != nil {
		return nil, err
	}
	l.reply = wire.Reply{}
	if err := wire.DecodeReply(q.Op, l.frame, &l.reply); err != nil {
		return nil, err
	}
	return &l.reply, l.reply.Err()
}

// read reads the next frame.
func (l *line) read() error {
	var head [wire.LengthSize]byte
	if _, err := io.ReadFull(l.in, head[:]); err != nil {
		return err
	}
	if n := wire.FrameLength(head[:]); cap(l.frame) < n {
		l.frame = make([]byte, n)
	} else {
		l.frame = l.frame[:n]
	}
	_, err := io.ReadFull(l.in, l.frame)
	return err
}

// set writes a number as a key's value.
func (l *line) set(key, number uint64) error {
	binary.BigEndian.PutUint64(l.value, number)
	r, err := l.do(&wire.Request{Op: wire.OpSet, Key: load.Key(nil, key, l.size), Value: l.value, TTLMS: wire.TTLDefault})
	if err == nil && r.Status != wire.OK {
		err = fmt.Errorf("a SET is answered %s", r.Status)
	}
	return err
}

// get reads a key's number; 0 means a miss. copied reports whether this host's copy
// answered.
func (l *line) get(key uint64) (number uint64, copied bool, err error) {
	r, err := l.do(&wire.Request{Op: wire.OpGet, Key: load.Key(nil, key, l.size)})
	if err != nil || r.Status != wire.OK {
		return 0, false, err
	}
	if len(r.Value) < 8 {
		return 0, false, fmt.Errorf("key %d has %d bytes, want 8 at least", key, len(r.Value))
	}
	return binary.BigEndian.Uint64(r.Value), r.Source == wire.SourceL1, nil
}
