package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/transport"
)

// TestTextEveryCut checks that requests are the same wherever the stream is cut, also those
// whose end is dropped.
func TestTextEveryCut(t *testing.T) {
	h := newText()
	s, dial, _ := serveText(t, h, "tcp", Limits{MaxFrame: 20})
	nc := dial()
	data := strings.Repeat("d", 21)
	all := "now a\r\nset b 4\r\nnow \r\nset c 21\r\n" + data + "\r\nnow e\r\nset f 20\r\n" + data[1:] + "\r\nset g 0\r\n\r\n"
	want := "a\r\nb 4 of 4\r\nc 0 of 21\r\ne\r\nf 20 of 20\r\ng 0 of 0\r\n"
	for cut := range len(all) {
		read := s.Stats().BytesIn
		mustWrite(t, nc, []byte(all[:cut]))
		eventually(t, "the first part", s, func(st Stats) bool { return st.BytesIn == read+int64(cut) })
		mustWrite(t, nc, []byte(all[cut:]))
		mustRead(t, nc, want)
	}
	for _, b := range []byte(all) {
		mustWrite(t, nc, []byte{b})
	}
	mustRead(t, nc, want)
	_ = nc.Close()
	if err := <-h.ended; err != nil {
		t.Error(err)
	}
	allGiven(t, s)
}

// TestTextDropsALot checks that the end of a request takes no memory if it is dropped.
func TestTextDropsALot(t *testing.T) {
	h := newText()
	s, dial, _ := serveText(t, h, "unix", Limits{MaxFrame: 1 << 10})
	nc := dial()
	mustWrite(t, nc, []byte("set a 20000000\r\n"))
	mustRead(t, nc, "a 0 of 20000000\r\n") // before the rest has come
	piece := []byte(strings.Repeat("now x\r\n", 10000))
	for range 20_000_000 / len(piece) {
		mustWrite(t, nc, piece)
	}
	if n := s.Stats().Buffers.Frames; n > 2*transport.BufferSize {
		t.Errorf("%d bytes are charged", n)
	}
	mustWrite(t, nc, append(piece[:20_000_000%len(piece)], "\r\nnow b\r\n"...))
	mustRead(t, nc, "b\r\n")
}

// TestTextDropIsTimed checks that what is dropped must come in time.
func TestTextDropIsTimed(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := newText()
		nc, _, ended := servePipe(t, h, Limits{Framing: h, MaxFrame: 100, FrameTimeout: time.Minute})
		defer nc.Close()
		go func() { _, _ = nc.Write([]byte("set a 1000\r\nx")) }()
		mustRead(t, nc, "a 0 of 1000\r\n")
		if err := <-ended; !errors.Is(err, ErrSlowFrame) {
			t.Error(err)
		}
	})
}

// TestTextBad checks that a bad request ends the connection, after those before it are
// answered, even if they wait.
func TestTextBad(t *testing.T) {
	for _, length := range []int{50, 100_000, 300_000} {
		h := newText()
		s, dial, _ := serveText(t, h, "tcp", Limits{MaxFrame: length})
		nc := dial()
		line := "now " + strings.Repeat("x", length-len("now \r\n"))
		mustWrite(t, nc, []byte("now a\r\nwait b 1\r\n"+line+"\r\n"+line+"xx\r\n"))
		mustRead(t, nc, "a\r\nb x\r\n"+line[len("now "):]+"\r\nBAD ")
		if err := <-h.ended; !errors.Is(err, errLine) || h.bad.Load() != 1 {
			t.Errorf("%v, %d times bad", err, h.bad.Load())
		}
		if st := s.Stats(); st.BadFrames != 1 {
			t.Errorf("%+v", st)
		}
		allGiven(t, s)
	}
}

// lax is a framing that has no bound of its own.
type lax struct{ *text }

func (l lax) Cut(b []byte, scanned, longest int) Cut { return l.text.Cut(b, scanned, 1<<30) }

// TestTextBound checks that a request whose length is not known cannot grow beyond its bound,
// whatever the framing says, and that its buffer is not much longer than that.
func TestTextBound(t *testing.T) {
	h := newText()
	const longest = 200_000
	nc, _, ended := servePipe(t, h, Limits{Framing: lax{h}, MaxFrame: longest})
	defer nc.Close()
	go func() { _, _ = nc.Write(make([]byte, 1<<20)) }()
	answer, err := bufio.NewReader(nc).ReadString('\n')
	var beginning, need int
	if _, e := fmt.Sscanf(answer, "BAD %d %d", &beginning, &need); e != nil || err != nil {
		t.Errorf("%q, %v", answer, err)
	}
	if most := longest + longest/8; beginning < longest || beginning > most || need != beginning {
		t.Errorf("%d bytes of %d were in the buffer, want %d to %d", beginning, need, longest, most)
	}
	if err := <-ended; !errors.Is(err, ErrFrame) {
		t.Error(err)
	}
}

// TestTextLongLine checks that a long line that comes in pieces is looked at once.
func TestTextLongLine(t *testing.T) {
	h := newText()
	s, dial, _ := serveText(t, h, "tcp", Limits{})
	nc := dial()
	const length = 1 << 20
	line := strings.Repeat("x", length)
	mustWrite(t, nc, []byte("now "))
	for i := 0; i < length; i += 2000 {
		mustWrite(t, nc, []byte(line[i:min(i+2000, length)]))
		if i%32_000 == 0 {
			eventually(t, "the piece", s, func(st Stats) bool { return st.BytesIn == int64(len("now ")+i+2000) })
		}
	}
	mustWrite(t, nc, []byte("\r\n"))
	mustRead(t, nc, line+"\r\n")
	if n := h.looked.Load(); n > 2*length {
		t.Errorf("%d bytes were looked at in %d", n, length)
	}
	_ = nc.Close()
	<-h.ended
	allGiven(t, s)
}

// TestTextBusy checks that a request without memory is answered BUSY and dropped, and that a line of unknown length ends the connection.
func TestTextBusy(t *testing.T) {
	for _, tc := range []struct {
		begins  string
		refuses bool
	}{{"set a 2000000\r\n", false}, {"set a 2000000\r\n", true}, {"now ", false}} {
		t.Run(fmt.Sprint(tc), func(t *testing.T) {
			h := newText()
			h.refuses = tc.refuses
			budget := quota.NewBudget(1 << 20)
			other := budget.Open("other", "")
			s, dial, _ := serveText(t, h, "unix", Limits{Budget: budget})
			nc := dial()
			other.Force(quota.ForRequests, 950<<10)
			rest := strings.Repeat("x", 2_000_000)
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				_, _ = fmt.Fprintf(nc, "now c\r\n%s%s\r\nnow d\r\n", tc.begins, rest)
			}()
			eventually(t, "the request to be dropped", s, func(st Stats) bool { return st.Dropped == 1 })
			if tc.refuses || tc.begins == "now " {
				mustRead(t, nc, "c\r\n")
				if err := <-h.ended; !errors.Is(err, quota.ErrBusy) {
					t.Error(err)
				}
			} else {
				mustRead(t, nc, "c\r\nBUSY\r\nd\r\n")
				_ = nc.Close()
				<-h.ended
			}
			<-sent
			other.Give(quota.ForRequests, 950<<10)
			other.Close()
			allGiven(t, s)
		})
	}
}

// TestTextShutdown checks that a server that ends answers the requests that it has read, in
// order, and closes the connections.
func TestTextShutdown(t *testing.T) {
	for _, over := range []string{"unix", "tcp"} {
		h := newText()
		s, dial, shutdown := serveText(t, h, over, Limits{DrainTimeout: 2 * testenv.Patience})
		nc, idle := dial(), dial()
		mustWrite(t, idle, []byte("now a\r\n"))
		mustRead(t, idle, "a\r\n")
		mustWrite(t, nc, []byte("hold b 0\r\nnow c\r\nwait d 10000\r\n"))
		eventually(t, "one to wait", s, func(st Stats) bool { return st.InFlight == 1 })
		go func() { mustReadEnd(t, idle); close(h.release) }()
		endsUnforced(t, shutdown)
		mustRead(t, nc, "b \r\nc\r\n"+string(answerTo("d", 10000)))
		mustReadEnd(t, nc)
	}
}

func mustReadEnd(t *testing.T, nc net.Conn) {
	t.Helper()
	if n, err := nc.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

// TestServingAllocatesNothing checks that requests that are answered in place allocate
// nothing, with either framing.
func TestServingAllocatesNothing(t *testing.T) {
	h := newText()
	lines := []byte(strings.Repeat("now key\r\n", 20))
	for name, l := range map[string]Limits{
		"length": {}, "lines": {Framing: h},
	} {
		near, far := tcp(t)
		c := connOf(far, newShared(l), "")
		c.handler = h
		in, answers := lines, make([]byte, 20*len("key\r\n"))
		if l.Framing == nil {
			c.handler, in, answers = fixed{}, []byte(strings.Repeat("\x00\x00\x00\x01a", 20)), answers[:20]
		}
		ended := make(chan error, 1)
		go func() { ended <- c.serve() }()
		testenv.Allocates(t, name, 0, 100, func() {
			if _, err := near.Write(in); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(near, answers); err != nil {
				t.Fatal(err)
			}
		})
		_ = near.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// fixed answers each frame with a byte.
type fixed struct{ values }

func (fixed) Serve(c *Conn, frames [][]byte) error {
	for range frames {
		c.Out = append(c.Out, 'x')
	}
	return nil
}

// mustRead reads as much as want has.
func mustRead(t testing.TB, nc io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(nc, got)
	if err != nil || string(got) != want {
		at := 0
		for at < n && got[at] == want[at] {
			at++
		}
		from := max(0, at-20)
		t.Fatalf("at %d of %d: %.60q, want %.60q, %v", at, len(want), got[from:n], want[from:], err)
	}
}

func mustWrite(t *testing.T, nc net.Conn, b []byte) {
	t.Helper()
	if _, err := nc.Write(b); err != nil {
		t.Fatal(err)
	}
}
