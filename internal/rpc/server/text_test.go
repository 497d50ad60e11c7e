package server

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

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// text is a Framing and the handler of its requests, which are lines. The line "set K N" has
// N bytes and another line's end behind it. All other lines have an operation, an id without
// spaces, and possibly a number of bytes:
//
//	now ID      is answered in place
//	big ID N    in place, with N bytes
//	wait ID N   the same after a wait
//	hold ID N   when the test says so
//	last ID N   when the test says so, as the last line of a batch
type text struct {
	looked  atomic.Int64  // bytes that Cut has searched for the end of a line
	release chan struct{} // of hold
	bad     atomic.Int64  // calls of Oversized
	refuses bool          // whether Busy has no answer
	ended   chan error
}

func newText() *text {
	return &text{release: make(chan struct{}), ended: make(chan error, 100)}
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

// answerTo is an answer with n bytes.
func answerTo(id string, n int) []byte {
	return fmt.Appendf(nil, "%s %s\r\n", id, strings.Repeat("x", n))
}

func (h *text) serve(c *Conn, frame string) error {
	line, data, _ := strings.Cut(frame, "\r\n")
	op, rest, _ := strings.Cut(line, " ")
	id, _, _ := strings.Cut(rest, " ")
	n := number([]byte(line))
	switch op {
	case "set":
		c.Out = fmt.Appendf(c.Out, "%s %d of %d\r\n", id, len(strings.TrimSuffix(data, "\r\n")), n)
	case "big":
		if err := c.Grow(n+100, true); err != nil {
			return err
		}
		c.Out = append(c.Out, answerTo(id, n)...)
	case "wait", "hold", "last":
		err := c.Wait(op == "last", func() {
			if op != "wait" {
				<-h.release
			}
		})
		if err != nil {
			return err
		}
		c.Out = append(c.Out, answerTo(id, n)...)
	default:
		return fmt.Errorf("line %q", line)
	}
	return nil
}

// serveText serves lines, over "unix", "tcp" or "pipe". It returns a function that dials, and
// one that ends the server.
func serveText(t testing.TB, h *text, over string, l Limits) (s *Server, dial func() net.Conn, shutdown func()) {
	t.Helper()
	l.Framing = h
	network, address := "tcp", "127.0.0.1:0"
	if over == "unix" {
		network, address = over, t.TempDir()+"/s"
	}
	ln, err := net.Listen(network, address)
	testenv.Must(t, err)
	s = New(l, slog.New(slog.DiscardHandler), func(net.Conn) (Handler, error) { return h, nil })
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
		testenv.Must(t, err)
		t.Cleanup(func() { nc.Close() })
		return nc
	}, shutdown
}
