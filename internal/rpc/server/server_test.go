package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/sched"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// echo answers a SET with the length of its value. It answers a GET by its key:
//
//	big N   with a value of N bytes
//	wait    when the test says so
//	dawdle  after a turn's time, by the reader
//	drop    by ending the connection
//	ask K   with the answer of another server to a GET of K
//	long N  with a value of N bytes, after the short answers
//	go N    with a value of N bytes, later
//	wait N  with a value of N bytes, when the test says so
//	while   when the connection has ended
//	waited  with whether the reader has waited
//	room    when the test says so, echo.most of them at once at most
//	awaits  when the test says so, as a read that begins once its answer has memory
type echo struct {
	most     int
	room     atomic.Int64
	crowd    atomic.Int64 // the greatest value of room so far
	last     chan *Conn   // of a go
	to       *rpc.Client  // for ask
	patience time.Duration
	release  chan struct{}
	served   atomic.Int64
	batches  atomic.Int64
	part     atomic.Int64 // the most frames in one call of Serve
	oversize atomic.Int64
	ended    chan error
	tenants  []string // of connections, in their order; nil: one for all
	conns    atomic.Int64
}

func newEcho() *echo {
	return &echo{release: make(chan struct{}), ended: make(chan error, 100), last: make(chan *Conn, 1)}
}

type echoHandler struct {
	*echo
	req wire.Request
}

func (h *echoHandler) Batch()  { h.batches.Add(1) }
func (h *echoHandler) Served() {}

func (h *echoHandler) Serve(c *Conn, frames [][]byte) error {
	h.part.Store(max(h.part.Load(), int64(len(frames))))
	for _, f := range frames {
		if err := h.serve(c, f); err != nil {
			return err
		}
	}
	return nil
}

func (h *echoHandler) serve(c *Conn, frame []byte) error {
	h.served.Add(1)
	if err := wire.DecodeRequest(frame, &h.req); err != nil {
		c.Out = wire.AppendError(c.Out, h.req.ID, err)
		return nil
	}
	id := h.req.ID
	var n int
	switch key := string(h.req.Key); {
	case key == "wait":
		c.Go(func() []byte {
			<-h.release
			return wire.AppendReply(nil, wire.OpGet, &wire.Reply{ID: id, Value: []byte("waited")})
		})
	case strings.HasPrefix(key, "wait "):
		_, _ = fmt.Sscan(key[5:], &n)
		c.Go(func() []byte {
			<-h.release
			return wire.AppendReply(nil, wire.OpGet, &wire.Reply{ID: id, Value: make([]byte, n)})
		})
	case key == "room":
		c.Begin(func() bool { return h.room.Load() < int64(h.most) })
		h.crowd.Store(max(h.crowd.Load(), h.room.Add(1))) // one connection, one reader
		c.Run(reading(func() []byte {
			<-h.release
			h.room.Add(-1)
			return wire.AppendReply(nil, wire.OpGet, &wire.Reply{ID: id})
		}))
	case key == "awaits":
		c.Account().Reads(1)
		c.Begin(c.Account().Awaits)
		c.Run(reading(func() []byte {
			<-h.release
			c.Account().Reads(-1)
			return wire.AppendReply(nil, wire.OpGet, &wire.Reply{ID: id})
		}))
	case key == "while":
		ctx := c.While(context.Background())
		c.Go(func() []byte {
			<-ctx.Done()
			return wire.AppendReply(nil, wire.OpGet, &wire.Reply{ID: id})
		})
	case strings.HasPrefix(key, "long "), strings.HasPrefix(key, "go "):
		_, _ = fmt.Sscan(strings.Fields(key)[1], &n)
		answer := func() []byte {
			return wire.AppendReply(nil, wire.OpGet, &wire.Reply{ID: id, Value: make([]byte, n)})
		}
		if key[0] == 'l' {
			c.Begin(nil)
			c.Long(n, answer)
			break
		}
		select {
		case h.last <- c:
		default:
		}
		c.Go(answer)
	case key == "waited":
		c.Out = wire.AppendReply(c.Out, wire.OpGet, &wire.Reply{ID: id, Value: fmt.Append(nil, c.Waited())})
	case key == "dawdle":
		time.Sleep(sched.SliceTime)
		c.Out = wire.AppendReply(c.Out, wire.OpGet, &wire.Reply{ID: id})
	case key == "hold":
		<-h.release
		c.Out = wire.AppendReply(c.Out, wire.OpGet, &wire.Reply{ID: id})
	case key == "drop":
		return errors.New("dropped")
	case strings.HasPrefix(key, "ask "):
		c.Begin(nil)
		f := &forwarded{c, id}
		c.FlushLater(h.to)
		if err := h.to.Start(getRequest(key[4:]), h.patience, f); err != nil {
			c.Run(reading(func() []byte { return f.reply(nil, nil, err) }))
		}
	case h.req.Op == wire.OpSet:
		c.Out = wire.AppendReply(c.Out, wire.OpSet, &wire.Reply{ID: id, Version: uint64(len(h.req.Value))})
	default:
		if _, err := fmt.Sscanf(key, "big %d", &n); err == nil && n >= 0 && n <= 1<<30 {
			if err := c.Grow(n+100, true); err != nil {
				c.Out = wire.AppendError(c.Out, id, wire.Errorf(wire.Busy, "%v", err))
				return nil
			}
			c.Out = wire.AppendReply(c.Out, wire.OpGet, &wire.Reply{ID: id, Value: make([]byte, n)})
			return nil
		}
		c.Out = wire.AppendReply(c.Out, wire.OpGet, &wire.Reply{ID: id, Value: h.req.Key})
	}
	return nil
}

// forwarded is a request that another server answers.
type forwarded struct {
	c  *Conn
	id uint64
}

func (f *forwarded) Answered(a *transport.Answers, frame []byte, err error) {
	a.Frame = f.reply(a.Frame[:0], frame, err)
	f.c.Answer(a, true)
}

func (f *forwarded) reply(dst, frame []byte, err error) []byte {
	var p wire.Reply
	if err == nil {
		err = wire.DecodeReply(wire.OpGet, frame, &p)
	}
	if p.ID = f.id; err != nil {
		p = wire.Reply{ID: f.id, Status: wire.Unavailable, Message: []byte(err.Error())}
	}
	return wire.AppendReply(dst, wire.OpGet, &p)
}

// connOf returns a connection of a tenant.
func connOf(nc net.Conn, s *shared, tenant string) *Conn {
	return newConn(nc, s, s.limits.Budget.Open(tenant, ""))
}

func (h *echoHandler) Account(b *quota.Budget) *quota.Account {
	if n := h.conns.Add(1); int(n) <= len(h.tenants) {
		return b.Open(h.tenants[n-1], "")
	}
	return b.Open("uid 0", "")
}

func (h *echoHandler) Gone() {}

func (h *echoHandler) Oversized(c *Conn, beginning []byte, length int, why error) {
	h.oversize.Add(1)
	id, _ := wire.PeekID(beginning)
	c.Out = wire.AppendError(c.Out, id, wire.Errorf(wire.TooLarge, "%v", why))
}

func (h *echoHandler) Close(err error) {
	select {
	case h.ended <- err:
	default: // a test with a thousand connections reads none
	}
}

func (h *echo) handler(net.Conn) (Handler, error) { return &echoHandler{echo: h}, nil }

// endsUnforced shuts a server down, whose DrainTimeout must be longer than Patience.
func endsUnforced(t *testing.T, shutdown func()) {
	t.Helper()
	ended := make(chan struct{})
	go func() { shutdown(); close(ended) }()
	select {
	case <-ended:
	case <-testenv.Expired():
		t.Error("it does not end but by force")
	}
}

// serve runs a server over a Unix socket until the test ends. It returns a function that
// dials the server and one that shuts it down.
func serve(t testing.TB, h *echo, l Limits) (s *Server, dial func() net.Conn, shutdown func()) {
	t.Helper()
	return serveOn(t, h, l, "unix", filepath.Join(t.TempDir(), "s"))
}

// serveOn is serve at an address of a network.
func serveOn(
	t testing.TB, h *echo, l Limits, network, address string,
) (s *Server, dial func() net.Conn, shutdown func()) {
	t.Helper()
	ln, err := net.Listen(network, address)
	testenv.Must(t, err)
	s = New(l, slog.New(slog.DiscardHandler), h.handler)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	var once sync.Once
	shutdown = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("serve: %v", err)
			}
		})
	}
	t.Cleanup(shutdown)
	return s, func() net.Conn {
		nc, err := net.Dial(network, ln.Addr().String())
		testenv.Must(t, err)
		t.Cleanup(func() { nc.Close() })
		return nc
	}, shutdown
}

func getFrame(id uint64, key string) []byte {
	return wire.AppendRequest(nil, &wire.Request{ID: id, Op: wire.OpGet, Key: []byte(key)})
}

func readReply(t testing.TB, r io.Reader) wire.Reply {
	t.Helper()
	p, err := tryReadReply(r)
	testenv.Must(t, err)
	return p
}

// tryReadFrame reads a frame and returns it without its length.
func tryReadFrame(r io.Reader) ([]byte, error) {
	var head [wire.LengthSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	frame := make([]byte, wire.FrameLength(head[:]))
	_, err := io.ReadFull(r, frame)
	return frame, err
}

func tryReadReply(r io.Reader) (wire.Reply, error) {
	frame, err := tryReadFrame(r)
	if err != nil {
		return wire.Reply{}, err
	}
	var p wire.Reply
	return p, wire.DecodeReply(wire.OpGet, frame, &p)
}

// TestBatch checks that many frames in one write are one batch, with one write back.
func TestBatch(t *testing.T) {
	h := newEcho()
	s, dial, _ := serve(t, h, Limits{})
	nc := dial()
	var b []byte
	for i := range 100 {
		b = append(b, getFrame(uint64(i), fmt.Sprint("k", i))...)
	}
	if _, err := nc.Write(b); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if p := readReply(t, nc); p.ID != uint64(i) || string(p.Value) != fmt.Sprint("k", i) {
			t.Fatalf("answer %d: %+v", i, p)
		}
	}
	if n := h.batches.Load(); n > 3 {
		t.Errorf("%d batches for one write", n)
	}
	if st := s.Stats(); st.Open != 1 || st.BytesIn != int64(len(b)) {
		t.Errorf("%+v", st)
	}
}

// TestEveryCut sends two frames in two pieces, cut at every byte.
func TestEveryCut(t *testing.T) {
	_, dial, _ := serve(t, newEcho(), Limits{})
	nc := dial()
	b := append(getFrame(1, "first"), getFrame(2, "second")...)
	for cut := range b {
		for _, part := range [][]byte{b[:cut], b[cut:]} {
			if len(part) > 0 {
				if _, err := nc.Write(part); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, want := range []string{"first", "second"} {
			if p := readReply(t, nc); string(p.Value) != want {
				t.Fatalf("cut at %d: got %q, want %q", cut, p.Value, want)
			}
		}
	}
}

func TestLargeFramesAndAnswers(t *testing.T) {
	s, dial, _ := serve(t, newEcho(), Limits{})
	nc := dial()
	for _, n := range []int{60_000, 65_536 - 20, 65_536, 1 << 20, 8 << 20} {
		go func() {
			_, _ = nc.Write(wire.AppendRequest(nil, &wire.Request{ID: 1, Op: wire.OpSet, Key: []byte("k"), Value: make([]byte, n), TTLMS: wire.TTLDefault}))
			_, _ = nc.Write(getFrame(2, fmt.Sprint("big ", n)))
			_, _ = nc.Write(getFrame(3, "after"))
		}()
		var head [4]byte
		for id := range uint64(3) {
			if _, err := io.ReadFull(nc, head[:]); err != nil {
				t.Fatal(err)
			}
			frame := make([]byte, binary.BigEndian.Uint32(head[:]))
			if _, err := io.ReadFull(nc, frame); err != nil {
				t.Fatal(err)
			}
			if got, _ := wire.PeekID(frame); got != id+1 {
				t.Fatalf("%d bytes: answer to %d, want %d", n, got, id+1)
			}
		}
	}
	allGiven(t, s)
}

// allGiven waits until no memory is charged to the budget.
func allGiven(t testing.TB, s *Server) {
	t.Helper()
	eventually(t, "the budget to be given back", s, func(Stats) bool {
		b := s.Limits().Budget
		b.DropBuffers() // else they are kept for a while
		st := b.Stats()
		return st.Total() == 0 && st.Tenants == 0
	})
}

// eventually waits until ok accepts the server's counts. A count may change a moment
// after the peer has seen the event.
func eventually(t testing.TB, what string, s *Server, ok func(Stats) bool) {
	t.Helper()
	testenv.Succeeds(t, what, func() error {
		if st := s.Stats(); !ok(st) {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
}

func TestFrameOutOfBounds(t *testing.T) {
	for _, length := range []uint32{0, 8<<20 + 64<<10 + 1, 1<<32 - 1} {
		h := newEcho()
		s, dial, _ := serve(t, h, Limits{})
		bad, other := dial(), dial()
		b := binary.BigEndian.AppendUint32(getFrame(1, "before"), length)
		b = append(b, getFrame(77, "x")[4:]...) // its id can still be read
		if _, err := bad.Write(b); err != nil {
			t.Fatal(err)
		}
		if p := readReply(t, bad); p.ID != 1 || string(p.Value) != "before" {
			t.Errorf("length %d: the frame before got %+v", length, p)
		}
		if p := readReply(t, bad); p.ID != 77 || p.Status != wire.TooLarge {
			t.Errorf("length %d: %+v", length, p)
		}
		if _, err := tryReadReply(bad); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("length %d: %v, want the connection to be closed", length, err)
		}
		if err := <-h.ended; !errors.Is(err, ErrFrame) {
			t.Errorf("length %d: ended with %v", length, err)
		}
		if _, err := other.Write(getFrame(1, "still here")); err != nil {
			t.Fatal(err)
		}
		if p := readReply(t, other); string(p.Value) != "still here" {
			t.Errorf("length %d: the other client got %+v", length, p)
		}
		if st := s.Stats(); st.BadFrames != 1 {
			t.Errorf("%+v", st)
		}
	}
}

// TestOutOfOrder checks that a request that waits does not delay those behind it.
func TestOutOfOrder(t *testing.T) {
	h := newEcho()
	s, dial, _ := serve(t, h, Limits{})
	nc := dial()
	if _, err := nc.Write(append(getFrame(1, "wait"), getFrame(2, "fast")...)); err != nil {
		t.Fatal(err)
	}
	if p := readReply(t, nc); p.ID != 2 {
		t.Errorf("first answer is to %d", p.ID)
	}
	if n := s.Stats().InFlight; n != 1 {
		t.Errorf("%d in flight", n)
	}
	close(h.release)
	if p := readReply(t, nc); p.ID != 1 || string(p.Value) != "waited" {
		t.Errorf("%+v", p)
	}
}

// TestMaxInFlight checks that a connection with MaxInFlight requests is not read from,
// and that others are.
func TestMaxInFlight(t *testing.T) {
	h := newEcho()
	_, dial, _ := serve(t, h, Limits{MaxInFlight: 4})
	nc, other := dial(), dial()
	b := getFrame(100, "first")
	for i := range 10 {
		b = append(b, getFrame(uint64(i), "wait")...)
	}
	if _, err := nc.Write(append(b, getFrame(101, "last")...)); err != nil {
		t.Fatal(err)
	}
	if p := readReply(t, nc); p.ID != 100 { // not delayed by the full pipeline
		t.Errorf("first answer is to %d", p.ID)
	}
	if _, err := other.Write(getFrame(1, "x")); err != nil {
		t.Fatal(err)
	}
	readReply(t, other)
	if n := h.served.Load(); n != 1+5+1 { // the fifth waits to become a task
		t.Errorf("%d requests served", n)
	}
	close(h.release)
	for range 11 {
		readReply(t, nc)
	}
}

// TestSlowReader checks that a client that takes no answers is cut off after
// WriteTimeout.
func TestSlowReader(t *testing.T) {
	h := newEcho()
	s, dial, _ := serve(t, h, Limits{WriteTimeout: 50 * time.Millisecond})
	nc, other := dial(), dial()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := range 64 {
			if _, err := nc.Write(getFrame(uint64(i), "big 1000000")); err != nil {
				return
			}
		}
	}()
	if err := <-h.ended; !errors.Is(err, ErrSlowReader) {
		t.Errorf("ended with %v", err)
	}
	<-sent
	if _, err := other.Write(getFrame(1, "x")); err != nil {
		t.Fatal(err)
	}
	readReply(t, other)
	if st := s.Stats(); st.SlowReaders != 1 || st.Open != 1 {
		t.Errorf("%+v", st)
	}
	allGiven(t, s)
}

// TestSlowFrame checks that a frame that comes byte by byte is cut off FrameTimeout after
// it began. Complete frames with long pauses between them are not cut off.
func TestSlowFrame(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := newEcho()
		s := newShared(Limits{})
		near, far := net.Pipe()
		c := connOf(far, s, "")
		c.handler = &echoHandler{echo: h}
		done := make(chan error, 1)
		go func() { done <- c.serve() }()

		for i := range 5 {
			time.Sleep(time.Hour)
			if _, err := near.Write(getFrame(uint64(i), "x")); err != nil {
				t.Fatal(err)
			}
			readReply(t, near)
		}
		// Always the end of a frame together with the beginning of the next: each frame
		// is complete in time.
		b := getFrame(9, "x")
		if _, err := near.Write(b[:5]); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			time.Sleep(20 * time.Second)
			go func() { _, _ = near.Write(append(b[5:len(b):len(b)], b[:5]...)) }()
			readReply(t, near)
		}
		start := time.Now()
		for i := 5; i < len(b); i++ {
			time.Sleep(5 * time.Second)
			if _, err := near.Write(b[i : i+1]); err != nil {
				break
			}
		}
		if err := <-done; !errors.Is(err, ErrSlowFrame) {
			t.Errorf("ended with %v", err)
		}
		if d := time.Since(start); d > 35*time.Second {
			t.Errorf("cut off after %v", d)
		}
		if s.slowFrames.Load() != 1 {
			t.Errorf("%d slow frames counted", s.slowFrames.Load())
		}
		near.Close()
	})
}

// TestShutdownAnswers checks that the requests that were read are answered, also by
// tasks, before the connection closes.
func TestShutdownAnswers(t *testing.T) {
	h := newEcho()
	s, dial, shutdown := serve(t, h, Limits{})
	nc, idle := dial(), dial()
	if _, err := nc.Write(append(getFrame(1, "wait"), getFrame(2, "x")...)); err != nil {
		t.Fatal(err)
	}
	readReply(t, nc)
	eventually(t, "both to be accepted", s, func(st Stats) bool { return st.Open == 2 })
	done := make(chan struct{})
	go func() {
		shutdown()
		close(done)
	}()
	if _, err := tryReadReply(idle); !errors.Is(err, io.EOF) {
		t.Errorf("the idle connection: %v", err)
	}
	select {
	case <-done:
		t.Error("shut down with a request unanswered")
	default:
	}
	close(h.release)
	if p := readReply(t, nc); p.ID != 1 {
		t.Errorf("%+v", p)
	}
	nc.Close()
	idle.Close()
	<-done
}

// TestShutdownUnderLoad checks that every request that the handler saw is answered.
func TestShutdownUnderLoad(t *testing.T) {
	h := newEcho()
	_, dial, shutdown := serve(t, h, Limits{DrainTimeout: 2 * testenv.Patience})
	var answered atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		nc := dial()
		wg.Go(func() {
			var b []byte
			for i := range 50 {
				b = append(b, getFrame(uint64(i), "x")...)
			}
			go func() {
				for {
					if _, err := nc.Write(b); err != nil {
						return
					}
				}
			}()
			for {
				if _, err := tryReadReply(nc); err != nil {
					nc.Close()
					return
				}
				answered.Add(1)
			}
		})
	}
	testenv.Eventually(t, "10,000 requests", func() bool { return h.served.Load() >= 10_000 })
	endsUnforced(t, shutdown)
	wg.Wait()
	if h.served.Load() != answered.Load() {
		t.Errorf("%d requests served, %d answers arrived", h.served.Load(), answered.Load())
	}
}

func TestMaxConns(t *testing.T) {
	s, dial, _ := serve(t, newEcho(), Limits{MaxConns: 2})
	a, b := dial(), dial()
	for _, nc := range []net.Conn{a, b} {
		if _, err := nc.Write(getFrame(1, "x")); err != nil {
			t.Fatal(err)
		}
		readReply(t, nc)
	}
	third := dial()
	if _, err := tryReadReply(third); err == nil {
		t.Error("a third connection is served")
	}
	if st := s.Stats(); st.Rejected != 1 || st.Open != 2 {
		t.Errorf("%+v", st)
	}
	a.Close()
	eventually(t, "one connection", s, func(st Stats) bool { return st.Open == 1 })
	again := dial()
	if _, err := again.Write(getFrame(1, "x")); err != nil {
		t.Fatal(err)
	}
	readReply(t, again)
}

// TestEndWithLastBytes checks that a client that sends its last request and closes its
// side at once gets the answer and then the end of the stream.
func TestEndWithLastBytes(t *testing.T) {
	t.Parallel()
	for network, address := range map[string]string{"unix": filepath.Join(t.TempDir(), "s"), "tcp": "127.0.0.1:0"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel() // over TCP each end is waited for
			s, dial, _ := serveOn(t, newEcho(), Limits{}, network, address)
			for range 20 {
				nc := dial()
				mustWrite(t, nc, getFrame(1, "x"))
				testenv.Must(t, nc.(interface{ CloseWrite() error }).CloseWrite())
				readReply(t, nc)
				if _, err := tryReadReply(nc); !errors.Is(err, io.EOF) {
					t.Errorf("%v, want the end", err)
				}
				nc.Close()
			}
			eventually(t, "no connection", s, func(st Stats) bool { return st.Open == 0 })
		})
	}
}

// TestConnectionStorm opens and drops 1,000 connections at once.
func TestConnectionStorm(t *testing.T) {
	s, dial, _ := serve(t, newEcho(), Limits{})
	steady := dial()
	var wg sync.WaitGroup
	for i := range 1000 {
		nc := dial()
		wg.Go(func() {
			if i%2 == 0 {
				_, _ = nc.Write(getFrame(1, "x")[:i%12])
			}
			nc.Close()
		})
	}
	wg.Wait()
	if _, err := steady.Write(getFrame(1, "x")); err != nil {
		t.Fatal(err)
	}
	readReply(t, steady)
	eventually(t, "1,001 accepted and 1 open", s, func(st Stats) bool { return st.Accepted == 1001 && st.Open == 1 })
}

// serveFront runs a server that forwards "ask" to another server.
func serveFront(t *testing.T, l Limits) (front, back *echo, dial func() net.Conn) {
	back = newEcho()
	_, dialBack, _ := serve(t, back, Limits{})
	front = newEcho()
	front.to, front.patience = newTestClient(t, dialBack, rpc.ClientConfig{}), time.Minute
	_, dial, _ = serve(t, front, l)
	return front, back, dial
}

// TestStart makes calls for many connections, more for each than may be in flight.
func TestStart(t *testing.T) {
	front, _, dial := serveFront(t, Limits{MaxInFlight: 7})
	const n = 300
	var wg sync.WaitGroup
	for g := range 8 {
		nc := dial()
		wg.Go(func() {
			var b []byte
			for i := range n {
				b = append(b, getFrame(uint64(i), fmt.Sprintf("ask %d.%d", g, i))...)
			}
			b = append(b, getFrame(n, "ask big 200000")...)
			if _, err := nc.Write(b); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			seen := map[uint64]bool{}
			for range n + 1 {
				p, err := tryReadReply(nc)
				if want := fmt.Sprintf("%d.%d", g, p.ID); err != nil || seen[p.ID] || p.ID < n && string(p.Value) != want || p.ID == n && len(p.Value) != 200_000 {
					t.Errorf("answer to %d: %.20q, %v, seen before: %v", p.ID, p.Value, err, seen[p.ID])
					return
				}
				seen[p.ID] = true
			}
		})
	}
	wg.Wait()
	if n := front.to.InFlight(); n != 0 {
		t.Errorf("%d calls are in flight", n)
	}
}

// TestStartFails checks that a caller is told the end of its call once, whatever the end
// is.
func TestStartFails(t *testing.T) {
	front, back, dial := serveFront(t, Limits{})
	defer close(back.release)
	front.patience = 20 * time.Millisecond
	nc := dial()
	ask := func(want error) {
		t.Helper()
		if _, err := nc.Write(append(getFrame(1, "ask wait"), getFrame(2, "x")...)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if p := readReply(t, nc); p.ID == 1 && (p.Status != wire.Unavailable || !strings.Contains(string(p.Message), want.Error())) {
				t.Errorf("got %s %q, want %q", p.Status, p.Message, want)
			}
		}
	}
	ask(rpc.ErrNoAnswer)
	ask(rpc.ErrNoAnswer) // the timer is set again
	front.patience = time.Minute
	closed := make(chan struct{})
	go func() { // ends with the connection
		testenv.Eventually(t, "a call, beside two that were given up", func() bool { return front.to.InFlight() == 3 })
		_ = front.to.Close()
		close(closed)
	}()
	ask(rpc.ErrClosed)
	<-closed
	ask(rpc.ErrNotSent)
}

// TestStartForSlowReader checks that a client that takes no answers does not delay the
// answers of others.
func TestStartForSlowReader(t *testing.T) {
	_, _, dial := serveFront(t, Limits{WriteTimeout: time.Minute})
	slow, other := dial(), dial()
	var b []byte
	for i := range 200 {
		b = append(b, getFrame(uint64(i), "ask big 60000")...)
	}
	if _, err := slow.Write(b); err != nil {
		t.Fatal(err)
	}
	_ = other.SetDeadline(testenv.Deadline())
	for i := range 100 {
		if _, err := other.Write(getFrame(uint64(i), "ask x")); err != nil {
			t.Fatal(err)
		}
		if p := readReply(t, other); p.ID != uint64(i) || string(p.Value) != "x" {
			t.Fatalf("answer to %d: %.20q", p.ID, p.Value)
		}
	}
	for range 200 {
		if p := readReply(t, slow); len(p.Value) != 60_000 {
			t.Fatalf("answer to %d has %d bytes", p.ID, len(p.Value))
		}
	}
}

// FuzzFrames feeds a connection any bytes in any pieces. Then the client goes, or the
// server shuts down and sends all answers. The connection must end and give back all
// memory, and there must not be more answers than requests.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0x90}, uint8(3))
	f.Add(append(getFrame(1, "a"), getFrame(2, "big 70000")...), uint8(7))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x93, 1, 3, 0}, uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, piece uint8) {
		h := newEcho()
		close(h.release)
		s := newShared(Limits{MaxFrame: 1 << 17, Budget: quota.NewBudget(1 << 19)})
		near, far := net.Pipe()
		c := connOf(far, s, "")
		c.handler = &echoHandler{echo: h}
		done := make(chan error, 1)
		go func() { done <- c.serve() }()
		answers := make(chan []byte, 1)
		go func() { // ends with the pipe
			read, _ := io.ReadAll(near)
			answers <- read
		}()
		requests := countFrames(b)
		for step := int(piece) + 1; len(b) > 0; b = b[min(step, len(b)):] {
			if _, err := near.Write(b[:min(step, len(b))]); err != nil {
				break
			}
		}
		if piece%2 == 0 {
			near.Close()
		} else {
			c.shutdown()
		}
		<-done
		near.Close()
		if n := countFrames(<-answers); n > requests {
			t.Errorf("%d answers to %d requests", n, requests)
		}
		if st, b := s.stats(), s.limits.Budget.Stats(); b.Total() != 0 || b.Tenants != 0 || st.InFlight != 0 {
			t.Errorf("not given back: %+v, %+v", st, b)
		}
	})
}

// countFrames returns how many frames begin in b.
func countFrames(b []byte) (n int) {
	for len(b) >= wire.LengthSize {
		n++
		b = b[min(wire.LengthSize+wire.FrameLength(b), len(b)):]
	}
	return n
}

func pipeline(t *testing.T, nc net.Conn, n int, key string) {
	t.Helper()
	var b []byte
	for i := range n {
		b = append(b, getFrame(uint64(i), key)...)
	}
	if _, err := nc.Write(b); err != nil && err != syscall.EPIPE {
		t.Fatal(fmt.Errorf("%s: %w", key, err))
	}
}

// TestShutdownIsExact checks that each call which a shutdown meets was served and has its
// answer, or was not served and was not sent.
func TestShutdownIsExact(t *testing.T) {
	testenv.Takes(t, 2*time.Second)
	for range 8 {
		h := newEcho()
		s, dial, shutdown := serve(t, h, Limits{DrainTimeout: 2 * testenv.Patience})
		var answered atomic.Int64
		var wg sync.WaitGroup
		for i := range 4 {
			c := newTestClient(t, dial, rpc.ClientConfig{})
			for range 4 {
				q := wire.Request{Op: wire.OpSet, Key: []byte("k"), Value: make([]byte, 10+i*20_000)}
				wg.Go(func() {
					for {
						call, err := c.Do(t.Context(), time.Minute, &q)
						c.Release(call)
						if err != nil {
							if !errors.Is(err, rpc.ErrNotSent) {
								t.Error(err)
							}
							return
						}
						answered.Add(1)
					}
				})
			}
		}
		// A connection that is not accepted yet would be reset, whatever was sent over it.
		eventually(t, "2,000 requests over 4 connections", s, func(st Stats) bool {
			return st.Accepted == 4 && h.served.Load() >= 2_000
		})
		endsUnforced(t, shutdown)
		wg.Wait()
		if h.served.Load() != answered.Load() {
			t.Errorf("%d requests served, %d answers arrived", h.served.Load(), answered.Load())
		}
	}
}

func getRequest(key string) *wire.Request { return &wire.Request{Op: wire.OpGet, Key: []byte(key)} }

func newTestClient(t testing.TB, dial func() net.Conn, cfg rpc.ClientConfig) *rpc.Client {
	c := rpc.NewClient(dial(), cfg)
	t.Cleanup(func() { _ = c.Close() })
	return c
}
