package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/tinylib/msgp/msgp"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// conn is a connection of a scripted server.
type conn struct {
	net.Conn
	s         *scripted
	n         int // in the order of accept
	requests  chan *asked
	left      chan uint64 // the id of LEAVING
	namespace string      // of HELLO
	boot      bool
	cut       int // bytes that are still read; zero: all
}

// mostRequest bounds a frame that the servers take, in bytes.
const mostRequest = 64 << 20

// read reads requests until the connection ends.
func (c *conn) read() {
	defer close(c.requests)
	var rest []byte
	buf := make([]byte, 1<<20)
	began := 0
	for reads := 1; ; reads++ {
		most := len(buf)
		if c.cut > 0 {
			most = min(most, c.cut)
		}
		n, err := c.Read(buf[:most])
		if len(rest) == 0 {
			began = reads
		}
		rest = append(rest, buf[:n]...)
		for len(rest) >= wire.LengthSize {
			size := wire.FrameLength(rest)
			if size > mostRequest {
				c.s.fail("connection %d: a request of %d bytes", c.n+1, size)
				return
			}
			if len(rest) < wire.LengthSize+size {
				break
			}
			frame := append([]byte(nil), rest[wire.LengthSize:wire.LengthSize+size]...)
			rest = rest[wire.LengthSize+size:]
			if !c.take(&asked{frame: frame, read: reads, began: began, conn: c}) {
				return
			}
			began = reads
		}
		if c.cut > 0 {
			if c.cut -= n; c.cut == 0 {
				c.stopReading(rest)
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// stopReading reads nothing more, as a sidecar that ends. What the client's system has taken
// can still be read: stopReading notes the requests in it that are whole. rest is the
// beginning of the first one.
func (c *conn) stopReading(rest []byte) {
	_ = c.Conn.(*net.UnixConn).CloseRead()
	more, _ := io.ReadAll(c.Conn) // fails if the client has gone
	for rest = append(rest, more...); len(rest) >= wire.LengthSize; {
		end := wire.LengthSize + wire.FrameLength(rest)
		if len(rest) < end {
			return
		}
		a := asked{frame: rest[wire.LengthSize:end], conn: c}
		if err := wire.DecodeRequest(a.frame, &a.Request); err != nil || !c.once(&a) {
			return
		}
		rest = rest[end:]
	}
}

// once fails a conversation in which a connection is cut if the key of a request has come before.
func (c *conn) once(a *asked) bool {
	if !c.s.of.cuts() || a.Key == nil {
		return true
	}
	again := false
	c.s.note(func() {
		again = c.s.keys[string(a.Key)]
		c.s.keys[string(a.Key)] = true
	})
	if again {
		c.s.fail("connection %d: a request comes a second time, and the system took it whole the first time: it may "+
			"be executed twice\n    got  %s", c.n+1, message(a.frame))
	}
	return !again
}

// take decodes a request. What a client sends on its own accord is answered here.
func (c *conn) take(a *asked) bool {
	if err := wire.DecodeRequest(a.frame, &a.Request); err != nil {
		c.s.fail("connection %d: the sidecar would refuse a request: %v\n    it is %s", c.n+1, err, message(a.frame))
		return false
	}
	switch own := &c.s.of.Client; {
	case a.Op == wire.OpLeaving:
		select {
		case c.left <- a.ID:
		default:
			c.s.fail("connection %d: a second LEAVING", c.n+1)
			return false
		}
		return true
	case a.Op == wire.OpWatch && own.NearCache:
		return true
	case a.Op == wire.OpHits && own.NearCache:
		if !a.Has(wire.Quiet) {
			_ = c.send(a, &wire.Reply{})
		}
		return true
	case a.Op == wire.OpPing && !c.s.of.pings(): // after a call without an answer
		_ = c.send(a, &wire.Reply{})
		return true
	}
	if !c.once(a) {
		return false
	}
	c.requests <- a
	c.s.note(func() { c.s.came++ })
	return true
}

func (c *conn) send(a *asked, r *wire.Reply) error {
	r.ID = a.ID
	_, err := c.Write(wire.AppendReply(nil, a.Op, r))
	return err
}

// errEnded says that the client has closed the connection.
var errEnded = errors.New("the connection has ended")

// play plays the connection's part of the script.
func (c *conn) play() {
	defer c.Close()
	var acts []act
	if c.n < len(c.s.of.Server.Script) {
		acts = c.s.of.Server.Script[c.n]
	}
	if len(acts) > 0 && acts[0].Maybe {
		acts = acts[1:]
	}
	if len(acts) == 0 || acts[0].Hello == nil && !acts[0].Close {
		acts = append([]act{{Hello: &hello{}}}, acts...)
	}
	for i := range acts {
		if err := c.act(&acts[i]); err != nil {
			if i == 0 && errors.Is(err, errEnded) && c.n >= len(c.s.of.Server.Script) {
				return // a connection that no step needs
			}
			c.s.fail("connection %d: want %s: %v", c.n+1, text(acts[i]), err)
			return
		}
		if acts[i].Close {
			return
		}
	}
	if err := c.closed(0); err != nil {
		c.s.fail("connection %d, after all of its steps: %v", c.n+1, err)
	}
}

// act does one step.
func (c *conn) act(a *act) error {
	switch {
	case a.Hello != nil:
		return c.greet(a.Hello)
	case a.Want != nil:
		return c.want([]asks{*a.Want}, false)
	case a.All != nil:
		return c.want(a.All, a.OneWrite && c.s.gather)
	case a.Answer != "":
		return c.answer(a)
	case a.Serve != nil:
		return c.serve(a)
	case a.Raw != "":
		return c.raw(a.Raw)
	case a.Leave:
		return c.leave()
	case a.PauseMS > 0:
		select {
		case <-c.s.ctx.Done():
		case <-time.After(time.Duration(a.PauseMS) * time.Millisecond):
		}
		return nil
	case a.Deaf:
		return c.Conn.(*net.UnixConn).CloseRead()
	case a.Await != "":
		_, err := c.s.request(a.Await)
		return err
	case a.Away:
		c.s.away()
		return nil
	case a.AwayMS > 0:
		c.s.away()
		c.s.back(time.Duration(a.AwayMS) * time.Millisecond)
		return nil
	case a.Close:
		return nil // by play
	case a.Closed:
		return c.closed(time.Duration(a.WithinMS) * time.Millisecond)
	}
	return errors.New("the step says nothing")
}

func (c *conn) raw(s string) error {
	b, err := hex.DecodeString(s)
	if err == nil {
		_, err = c.Write(b)
	}
	return err
}

// next returns the next request.
func (c *conn) next() (*asked, error) {
	select {
	case a, ok := <-c.requests:
		if !ok {
			return nil, errEnded
		}
		return a, nil
	case <-c.s.ctx.Done():
		return nil, errors.New("nothing came")
	}
}

// closed waits until the client closes the connection.
func (c *conn) closed(within time.Duration) error {
	var late <-chan time.Time
	if within > 0 {
		late = time.After(within)
	}
	select {
	case a, ok := <-c.requests:
		if ok {
			return fmt.Errorf("the client sends more\n    got  %s", message(a.frame))
		}
	case <-late:
		return fmt.Errorf("the client has not closed the connection after %v", within)
	case <-c.s.ctx.Done():
	}
	return nil
}

func (c *conn) leave() error {
	select {
	case id := <-c.left:
		return c.send(&asked{Request: wire.Request{ID: id, Op: wire.OpLeaving}}, &wire.Reply{})
	case <-c.s.ctx.Done():
		return errors.New("no LEAVING came")
	}
}

// greet answers HELLO.
func (c *conn) greet(h *hello) error {
	a, err := c.next()
	if err != nil {
		return err
	}
	if a.Op != wire.OpHello {
		return fmt.Errorf("the first request is no HELLO\n    got  %s", message(a.frame))
	}
	c.namespace, c.boot = "default", h.Boot
	if a.Hello.Namespace != "" {
		c.namespace = a.Hello.Namespace
	}
	switch {
	case h.Silent:
		return nil
	case h.Raw != "":
		return c.raw(h.Raw)
	case h.Reply != nil:
		r, err := h.Reply.wire()
		if err != nil {
			return err
		}
		return c.send(a, &r)
	}
	version, ok := wire.Common(a.Hello.Versions)
	if !ok {
		return fmt.Errorf("the client speaks none of the versions %v\n    got  %s", wire.Versions, message(a.frame))
	}
	w := wire.Welcome{
		Version: version, Node: "scripted", Server: "conformance", Epoch: 1, Features: []string{},
		Hash: wire.Hashing{Name: wire.HashName, Partitions: 1 << 14},
		Limits: wire.Limits{
			Key: 1024, Value: 1 << 20, Frame: 1<<20 + wire.FrameSlack, Keys: wire.MaxKeys, InFlight: 1024,
			TTLMS: wire.MaxTTL, TimeoutMS: 1000,
		},
	}
	if h.Value > 0 {
		w.Limits.Value = h.Value
	}
	if h.Boot {
		w.Boot = wire.BootClock{ID: kv.BootClockID(), NowNS: uint64(kv.NewSystemClock().Read().Boot)}
	}
	body := wire.MarshalBody(w)
	return c.send(a, &wire.Reply{Body: body})
}

// answer answers a request that has come over any connection.
func (c *conn) answer(a *act) error {
	q, err := c.s.request(a.Answer)
	if err != nil {
		return fmt.Errorf("no request %q came", a.Answer)
	}
	r, err := a.Reply.wire()
	if err != nil {
		return err
	}
	if r.ID = q.ID; a.OtherID {
		r.ID += 1 << 20
	}
	r.Attested = a.More // its elements come before those that are not known
	frame := wire.AppendReply(nil, q.Op, &r)
	if a.More { // the array's head is one byte
		frame[wire.LengthSize] += 3
		frame = msgp.AppendMapHeader(frame, 1)
		frame = msgp.AppendString(frame, "later")
		frame = msgp.AppendArrayHeader(frame, 1)
		frame = msgp.AppendNil(frame)
		frame = msgp.AppendUint64(frame, 1<<40)
		frame = wire.EndFrame(msgp.AppendBytes(frame, []byte{0xc1}), 0)
	}
	if a.First > 0 {
		frame = frame[:a.First]
	}
	_, _ = q.conn.Write(frame) // fails if the client does not wait for it, as after abandon
	return nil
}

// serve gives one answer to all further requests, which are alike.
func (c *conn) serve(a *act) error {
	r, err := a.Reply.wire()
	if err != nil {
		return err
	}
	for {
		q, err := c.next()
		if err != nil {
			return nil // the client has gone
		}
		if err := c.compare(a.Serve, q); err != nil {
			return fmt.Errorf("%w\n    got  %s", err, message(q.frame))
		}
		if c.send(q, &r) != nil {
			return nil
		}
	}
}

// text returns the JSON of a part of a script, without what is not set.
func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	var x any
	if json.Unmarshal(b, &x) != nil {
		return string(b)
	}
	b, _ = json.Marshal(set(x))
	return string(b)
}

// set removes what is zero.
func set(x any) any {
	switch x := x.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, v := range x {
			if v = set(v); v != nil {
				out[k] = v
			}
		}
		if len(out) == 0 {
			return nil
		}
		return out
	case []any:
		for i := range x {
			x[i] = set(x[i])
		}
		if len(x) == 0 {
			return nil
		}
	case bool:
		if !x {
			return nil
		}
	case string:
		if x == "" {
			return nil
		}
	case float64:
		if x == 0 {
			return nil
		}
	}
	return x
}
