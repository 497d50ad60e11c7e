package attacks

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// frame encodes a message with its length.
func frame(elements ...any) []byte {
	body, err := msgpack.Marshal(elements)
	if err != nil {
		panic(err) // the attackers made up the elements themselves
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// conn is a raw connection to a sidecar. It is for one goroutine.
type conn struct {
	net.Conn
	r    *bufio.Reader
	wait time.Duration // how long a call may take
	id   uint64

	welcome map[string]any // the answer to HELLO
}

// dial connects. It tries again if the backlog of a Unix socket is full.
func dial(ctx context.Context, network, address string, wait time.Duration) (*conn, error) {
	var d net.Dialer
	for end := time.Now().Add(wait); ; {
		c, err := d.DialContext(ctx, network, address)
		if err == nil {
			return &conn{Conn: c, r: bufio.NewReaderSize(c, 64<<10), wait: wait}, nil
		}
		if !errors.Is(err, syscall.EAGAIN) || time.Now().After(end) {
			return nil, err
		}
		rest(ctx, 5*time.Millisecond)
	}
}

// open connects to a socket and sends HELLO.
func open(ctx context.Context, socket string, wait time.Duration) (*conn, error) {
	c, err := dial(ctx, "unix", socket, wait)
	if err != nil {
		return nil, err
	}
	a, err := c.call(wire.OpHello, 0, map[string]any{"v": []int{wire.Version}})
	if err == nil && a.status != wire.OK {
		err = fmt.Errorf("HELLO: %v", a)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	c.welcome, _ = a.at(0).(map[string]any)
	return c, nil
}

// answer is a status and the elements after it.
type answer struct {
	id     uint64
	status wire.Status
	rest   []any
}

func (a answer) at(i int) any {
	if i < len(a.rest) {
		return a.rest[i]
	}
	return nil
}

func (a answer) String() string {
	s := fmt.Sprint(a.status, " ", a.rest)
	return s[:min(len(s), 120)]
}

// number returns a number in an answer, whatever its encoding.
func number(x any) uint64 {
	switch n := x.(type) {
	case int64:
		return uint64(n)
	case uint64:
		return n
	}
	return 0
}

// content returns the bytes in an answer, whatever their encoding.
func content(x any) string {
	switch b := x.(type) {
	case []byte:
		return string(b)
	case string:
		return b
	}
	return ""
}

func (c *conn) read() (answer, error) {
	var head [4]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return answer{}, err
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(c.r, body); err != nil {
		return answer{}, err
	}
	return decode(body)
}

func decode(body []byte) (answer, error) {
	d := msgpack.NewDecoder(bytes.NewReader(body))
	d.UseLooseInterfaceDecoding(true)
	all, err := d.DecodeSlice()
	if err != nil {
		return answer{}, err
	}
	if len(all) < 2 {
		return answer{}, fmt.Errorf("an answer of %d elements", len(all))
	}
	return answer{number(all[0]), wire.Status(number(all[1])), all[2:]}, nil
}

// send writes a request, and returns its id.
func (c *conn) send(op wire.Op, timeoutMS int, rest ...any) (uint64, error) {
	c.id++
	_ = c.SetDeadline(time.Now().Add(c.wait))
	_, err := c.Write(frame(append([]any{c.id, op, timeoutMS}, rest...)...))
	return c.id, err
}

// call sends a request and reads up to its answer.
func (c *conn) call(op wire.Op, timeoutMS int, rest ...any) (answer, error) {
	id, err := c.send(op, timeoutMS, rest...)
	for err == nil {
		var a answer
		if a, err = c.read(); err == nil && a.id == id {
			return a, nil
		}
	}
	return answer{}, err
}

// rest waits for d, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
