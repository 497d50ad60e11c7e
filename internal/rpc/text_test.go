package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// text is a Framing and the handler of its requests, which are lines. The line "set K N" has
// N bytes and another line's end behind it. All other lines have an operation, an id without
// spaces, and possibly a number of bytes:
//
//	now ID      is answered in place
//	big ID N    in place, with N bytes
//	run ID N    later, by Run; so do go, long (by Long), answer (by Answer), and start (by
//	            the answer of another server)
//	mute ID     later, with no bytes
//	split ID N  in five parts, of which the second and the fourth come later, with N bytes each
//	parts ID N  later, as three times run, by More and Run
//	hold ID N   when the test says so
type text struct {
	looked  atomic.Int64  // bytes that Cut has searched for the end of a line
	delay   func()        // of later answers
	release chan struct{} // of hold
	to      *Client       // of start
	bad     atomic.Int64  // calls of Oversized
	refuses bool          // whether neither Busy nor Instead has an answer
	ended   chan error
}

func newText() *text {
	return &text{delay: func() {}, release: make(chan struct{}), ended: make(chan error, 100)}
}

var errLine = errors.New("the line is too long")

func (h *text) Cut(b []byte, scanned, longest int) Cut {
	h.looked.Add(int64(len(b) - scanned))
	end := bytes.IndexByte(b[scanned:], '\n') + 1
	if end == 0 && len(b) <= longest {
		return Cut{Scanned: len(b)}
	}
	if end += scanned; end == scanned || end > longest {
		return Cut{Bad: errLine, Frame: b, Need: len(b)}
	}
	if !bytes.HasPrefix(b, []byte("set ")) {
		return Cut{Frame: b[:end], Size: end}
	}
	n := number(b[:end])
	switch size := end + n + len("\r\n"); {
	case n > longest:
		return Cut{Frame: b[:end], Size: end, Drop: n + len("\r\n")}
	case size > len(b):
		return Cut{Need: size, Scanned: end - 1}
	default:
		return Cut{Frame: b[:size], Size: size}
	}
}

// number returns the last word of a line.
func number(line []byte) (n int) {
	line = bytes.TrimSpace(line)
	n, _ = strconv.Atoi(string(line[bytes.LastIndexByte(line, ' ')+1:]))
	return n
}

func (h *text) Busy(dst, beginning []byte, why error) ([]byte, bool) {
	return append(dst, "BUSY\r\n"...), !h.refuses
}

func (h *text) Instead(dst, answer []byte, why error) ([]byte, bool) {
	return append(dst, "INSTEAD\r\n"...), !h.refuses
}

func (h *text) Batch()          {}
func (h *text) Served()         {}
func (h *text) Gone()           {}
func (h *text) Close(err error) { h.ended <- err }

func (h *text) Oversized(c *Conn, beginning []byte, length int, why error) {
	h.bad.Add(1)
	c.Out = fmt.Appendf(c.Out, "BAD %d %d\r\n", len(beginning), length)
}

func (h *text) Serve(c *Conn, frames [][]byte) error {
	for _, f := range frames {
		if rest, ok := bytes.CutPrefix(f, []byte("now ")); ok {
			c.Out = append(c.Out, rest...)
		} else if err := h.serve(c, string(f)); err != nil {
			return err
		}
	}
	return nil
}

// answerTo is the answer to a later request with n bytes.
func answerTo(id string, n int) []byte {
	return fmt.Appendf(nil, "%s %s\r\n", id, strings.Repeat("x", n))
}

func (h *text) serve(c *Conn, frame string) error {
	line, data, _ := strings.Cut(frame, "\r\n")
	op, rest, _ := strings.Cut(line, " ")
	id, _, _ := strings.Cut(rest, " ")
	n := number([]byte(line))
	later := func() []byte { h.delay(); return answerTo(id, n) }
	switch op {
	case "set":
		c.Out = fmt.Appendf(c.Out, "%s %d of %d\r\n", id, len(strings.TrimSuffix(data, "\r\n")), n)
	case "big":
		if err := c.Grow(n+100, true); err != nil {
			return err
		}
		c.Out = append(c.Out, answerTo(id, n)...)
	case "go":
		c.Go(later)
	case "run", "mute", "parts", "hold", "long", "answer", "start":
		p, _ := c.Begin(nil)
		h.later(c, p, op, id, n, later)
	case "split":
		c.Out = append(c.Out, id...)
		for range 2 {
			c.Out = append(c.Out, '[')
			p, _ := c.Begin(nil)
			h.later(c, p, "run", id, n, later)
			c.Out = append(c.Out, ']')
		}
		c.Out = append(c.Out, "\r\n"...)
	default:
		return fmt.Errorf("line %q", line)
	}
	return nil
}

// later answers a request that has begun.
func (h *text) later(c *Conn, p Place, op, id string, n int, later func() []byte) {
	switch op {
	case "run":
		c.Run(p, reading(later))
	case "mute":
		c.Run(p, func() ([]byte, bool) { h.delay(); return nil, false })
	case "parts":
		c.Run(p, reading(func() []byte {
			for range 2 {
				for taken, stands := false, true; !taken; {
					if taken, stands = More(c, p, later()); !stands {
						return nil
					}
				}
			}
			return later()
		}))
	case "hold":
		c.Run(p, reading(func() []byte { <-h.release; return answerTo(id, n) }))
	case "long":
		c.Long(p, n, later)
	case "answer":
		go func() {
			var a Answers
			a.Frame = later()
			c.Answer(&a, p, true)
			a.Write()
		}()
	case "start":
		w := &started{h, c, p, later}
		if err := c.Start(h.to, getRequest(id), time.Minute, w); err != nil {
			c.Run(p, reading(later))
		}
	}
}

// started is a request that another server answers.
type started struct {
	h     *text
	c     *Conn
	p     Place
	later func() []byte
}

func (s *started) Answered(a *Answers, frame []byte, err error) {
	var r wire.Reply
	if err == nil {
		err = wire.DecodeReply(wire.OpGet, frame, &r)
	}
	if err != nil {
		panic(err)
	}
	a.Frame = append(a.Frame[:0], s.later()...)
	s.c.Answer(a, s.p, true)
}

// wanted returns the answer to a line.
func wanted(line string) string {
	words := strings.Fields(line)
	n := number([]byte(line))
	switch words[0] {
	case "now":
		return words[1] + "\r\n"
	case "mute":
		return ""
	case "parts":
		return strings.Repeat(string(answerTo(words[1], n)), 3)
	case "split":
		part := "[" + string(answerTo(words[1], n)) + "]"
		return words[1] + part + part + "\r\n"
	}
	return string(answerTo(words[1], n))
}

// serveText serves lines, over "unix", "tcp" or "pipe". It returns a function that dials, and
// one that ends the server.
func serveText(t testing.TB, h *text, over string, l Limits) (s *Server, dial func() net.Conn, shutdown func()) {
	t.Helper()
	l.Framing, l.InOrder = h, true
	network, address := "tcp", "127.0.0.1:0"
	if over == "unix" {
		network, address = over, t.TempDir()+"/s"
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	l.Loop = l.Loop || inLoop
	s = NewServer(l, slog.New(slog.DiscardHandler), func(net.Conn) (Handler, error) { return h, nil })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	shutdown = func() {
		if cancel(); done == nil {
			return
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		done = nil
	}
	t.Cleanup(shutdown)
	return s, func() net.Conn {
		nc, err := net.Dial(network, ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		return nc
	}, shutdown
}
