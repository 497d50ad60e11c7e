package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// conn is the connection of a client that may misbehave.
type conn struct {
	t  testing.TB
	nc *net.UnixConn
	r  *bufio.Reader
	id uint64
}

// connect opens a connection and sends nothing.
func (p *process) connect() *conn {
	p.t.Helper()
	c, err := p.tryConnect()
	testenv.Must(p.t, err)
	p.t.Cleanup(c.close)
	return c
}

// tryConnect opens a connection; other goroutines than the test's may call it. Nothing on
// the connection waits longer than Patience.
func (p *process) tryConnect() (*conn, error) {
	nc, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: p.socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	return &conn{t: p.t, nc: nc, r: bufio.NewReaderSize(nc, 64<<10)}, nc.SetDeadline(testenv.Deadline())
}

// dial opens a connection and sends HELLO.
func (p *process) dial() *conn {
	p.t.Helper()
	c := p.connect()
	if r := c.call(helloRequest()); r.Status != wire.OK {
		p.t.Fatalf("HELLO: %v %s", r.Status, r.Message)
	}
	return c
}

func (p *process) tryDial() (*conn, error) {
	c, err := p.tryConnect()
	if err != nil {
		return nil, err
	}
	if _, err = c.try(helloRequest()); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func helloRequest() *wire.Request {
	return &wire.Request{Op: wire.OpHello, Hello: wire.Hello{Versions: []int{wire.Version}, Client: "test"}}
}

func (c *conn) close() { _ = c.nc.Close() }

// write writes arbitrary bytes.
func (c *conn) write(b []byte) {
	c.t.Helper()
	testenv.Must(c.t, testenv.ErrorOf(c.nc.Write(b)))
}

// frame puts a length before bytes.
func frame(b []byte) []byte {
	return wire.EndFrame(append(wire.BeginFrame(nil), b...), 0)
}

// readFrame reads the bytes behind a length.
func readFrame(r io.Reader) ([]byte, error) {
	var head [wire.LengthSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	b := make([]byte, wire.FrameLength(head[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

// read reads the answer to a request.
func (c *conn) read(op wire.Op) (r wire.Reply, err error) {
	b, err := readFrame(c.r)
	if err == nil {
		err = wire.DecodeReply(op, b, &r)
	}
	return r, err
}

// send sends a request with a new id.
func (c *conn) send(q *wire.Request) error {
	c.id++
	q.ID = c.id
	_, err := c.nc.Write(wire.AppendRequest(nil, q))
	return err
}

// try makes a call. An answer with an error status is an error.
func (c *conn) try(q *wire.Request) (wire.Reply, error) {
	if err := c.send(q); err != nil {
		return wire.Reply{}, err
	}
	r, err := c.read(q.Op)
	switch {
	case err != nil:
		return r, err
	case r.ID != q.ID:
		return r, fmt.Errorf("%v: answer %d to request %d", q.Op, r.ID, q.ID)
	}
	return r, r.Err()
}

// call makes a call and returns the answer, even one with an error status.
func (c *conn) call(q *wire.Request) wire.Reply {
	c.t.Helper()
	_ = c.nc.SetDeadline(testenv.Deadline())
	r, err := c.try(q)
	var answer *wire.Error
	if err != nil && !errors.As(err, &answer) {
		c.t.Fatalf("%v: %v", q.Op, err)
	}
	return r
}

// must makes a call that must be answered OK.
func (c *conn) must(q *wire.Request) wire.Reply {
	c.t.Helper()
	r := c.call(q)
	if r.Status != wire.OK {
		c.t.Fatalf("%v: %v %s", q.Op, r.Status, r.Message)
	}
	return r
}

func (c *conn) stats() (st cachesidecar.Stats) {
	c.t.Helper()
	testenv.Must(c.t, wire.UnmarshalBody(c.must(&wire.Request{Op: wire.OpStats}).Body, &st))
	return st
}

// rest reads the remaining answers until the sidecar ends the connection.
func (c *conn) rest() (answers []wire.Reply) {
	c.t.Helper()
	_ = c.nc.SetReadDeadline(testenv.Deadline())
	for {
		r, err := c.read(wire.OpPing)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			c.t.Fatal("the connection stands")
		case err != nil:
			return answers
		}
		answers = append(answers, r)
	}
}

func getRequest(key string) *wire.Request { return &wire.Request{Op: wire.OpGet, Key: []byte(key)} }

func setRequest(key, value string) *wire.Request {
	return &wire.Request{Op: wire.OpSet, Key: []byte(key), Value: []byte(value), TTLMS: wire.TTLDefault}
}

func ping() *wire.Request { return &wire.Request{Op: wire.OpPing} }

// bystander starts a client that reads one key all the time, beside a misbehaving one.
// check ends it, and fails the test if one of its calls failed or took long, not counting
// the time in which this machine stood still.
func (p *process) bystander() (check func()) {
	p.t.Helper()
	const patient = 5 * time.Second // a call mostly takes less than a millisecond
	testenv.ReadsClock(p.t, 5*time.Second, "a client beside one that misbehaves must not wait until that one is cut off")
	c := p.dial()
	c.must(setRequest("bystander", "value"))
	stop, done := make(chan struct{}), make(chan struct{})
	var calls atomic.Int64
	var failed error
	var long []span
	still := standstills(stop)
	go func() { // ends with stop, or its connection
		defer close(done)
		tick := time.NewTicker(500 * time.Microsecond)
		defer tick.Stop()
		for failed == nil {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			start := time.Now()
			_ = c.nc.SetDeadline(testenv.Deadline())
			r, err := c.try(getRequest("bystander"))
			if failed = err; err == nil && string(r.Value) != "value" {
				failed = fmt.Errorf("GET: %v %q", r.Status, r.Value)
			}
			if call := (span{start, time.Now()}); call.to.Sub(call.from) > patient {
				long = append(long, call)
			}
			calls.Add(1)
		}
	}()
	ended := false
	end := func() {
		if !ended {
			ended = true
			close(stop)
			<-done
			c.close()
		}
	}
	p.t.Cleanup(end)
	return func() {
		p.t.Helper()
		seen := calls.Load()
		testenv.Eventually(p.t, "the bystander to go on", func() bool {
			select {
			case <-done:
				return true
			default:
				return calls.Load() > seen
			}
		})
		end()
		if failed != nil {
			p.t.Errorf("the bystander: %v, after %d calls", failed, calls.Load())
		}
		gaps := still()
		for _, call := range long {
			took := call.to.Sub(call.from)
			for _, g := range gaps {
				took -= time.Duration(max(0, min(call.to.UnixNano(), g.to.UnixNano())-max(call.from.UnixNano(), g.from.UnixNano())))
			}
			if took > patient {
				p.t.Errorf("the bystander: a call took %v, of %d", took, calls.Load())
			}
		}
	}
}

// span is a period of time.
type span struct{ from, to time.Time }

// standstills records, until stop, when this process did not run, so that its machine
// probably stood still. The returned function waits for the end.
func standstills(stop <-chan struct{}) func() []span {
	done := make(chan []span, 1)
	go func() { // ends with stop
		var gaps []span
		last := time.Now()
		for ended := false; !ended; {
			select {
			case <-stop:
				ended = true
			case <-time.After(10 * time.Millisecond):
			}
			now := time.Now()
			if now.Sub(last) > 100*time.Millisecond {
				gaps = append(gaps, span{last, now})
			}
			last = now
		}
		done <- gaps
		close(done)
	}()
	return func() []span { return <-done }
}
