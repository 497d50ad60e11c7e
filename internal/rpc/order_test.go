package rpc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

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

// script returns n random lines, and their answers in order.
func script(rnd *rand.Rand, n int, ops ...string) (lines, answers string) {
	var in, out strings.Builder
	for i := range n {
		size := rnd.IntN(100)
		if rnd.IntN(20) == 0 {
			size = rnd.IntN(2 * shortAnswer)
		}
		line := fmt.Sprintf("%s %d %d\r\n", ops[rnd.IntN(len(ops))], i, size)
		if op, _, _ := strings.Cut(line, " "); op == "now" {
			line = fmt.Sprintf("now %d\r\n", i)
		}
		in.WriteString(line)
		out.WriteString(wanted(line))
	}
	return in.String(), out.String()
}

var allOps = []string{"now", "now", "big", "run", "go", "answer", "mute", "split", "parts", "long", "start"}

// TestInOrder checks that answers come in the order of their requests, whichever way and in
// whatever order the requests end.
func TestInOrder(t *testing.T) {
	testenv.Takes(t, 2*time.Second)
	testenv.ReadsClock(t, 200*time.Microsecond, "requests end at random moments; nothing is measured")
	for _, over := range []string{"unix", "tcp"} {
		t.Run(over, func(t *testing.T) {
			_, dialBack, _ := serve(t, newEcho(), Limits{})
			h := newText()
			h.to = newTestClient(t, dialBack, ClientConfig{MaxCalls: 1000})
			h.delay = func() {
				if n := rand.IntN(4); n > 0 {
					time.Sleep(time.Duration(n-1) * 100 * time.Microsecond)
				}
			}
			s, dial, _ := serveText(t, h, over, Limits{MaxInFlight: 100})
			for seed := range uint64(4) {
				rnd := rand.New(rand.NewPCG(seed, 1))
				lines, want := script(rnd, 1000, allOps...)
				nc := dial()
				go func() {
					for len(lines) > 0 {
						n := min(len(lines), 1+rnd.IntN(1<<rnd.IntN(14)))
						if _, err := nc.Write([]byte(lines[:n])); err != nil {
							t.Error(err)
							return
						}
						lines = lines[n:]
					}
				}()
				mustRead(t, nc, want)
				_ = nc.Close()
				if err := <-h.ended; err != nil {
					t.Error(err)
				}
			}
			allGiven(t, s)
			if st := s.Stats(); st.InFlight != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// TestInOrderLate is TestInOrder with requests that wait for up to a minute.
func TestInOrderLate(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		for seed := range uint64(5) {
			h := newText()
			h.delay = func() { time.Sleep(time.Duration(rand.IntN(60)) * time.Second) }
			budget := NewBudget(64 << 20)
			nc, c, ended := servePipe(t, h, Limits{Framing: h, InOrder: true, Budget: budget})
			lines, want := script(rand.New(rand.NewPCG(seed, 2)), 400, allOps[:len(allOps)-1]...)
			go func() { _, _ = nc.Write([]byte(lines)) }()
			mustRead(t, nc, want)
			_ = nc.Close()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			empty(t, c, budget)
		}
	})
}

// empty checks that a connection that has ended has nothing left.
func empty(t *testing.T, c *Conn, budget *Budget) {
	t.Helper()
	budget.large.drop()
	if n := budget.Stats().Total(); n != 0 {
		t.Errorf("%d bytes are held at the end", n)
	}
	o := &c.replies.order
	if !o.empty() || o.short != 0 || c.outbox.lined != 0 || c.outbox.share.used.Load() != 0 || c.replies.tasks != 0 {
		t.Errorf("the line has %d places and %d bytes, %d short; %d are charged",
			len(o.spots)-o.first, c.outbox.lined, o.short, c.outbox.share.used.Load())
	}
}

// TestOrderWritesOnce checks that what waits behind a request comes in one write, with its
// answer, and that a request without an answer writes nothing.
func TestOrderWritesOnce(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := newText()
		near, far := net.Pipe()
		counted := &countedWrites{Conn: far}
		c := newConn(counted, newShared(Limits{Framing: h, InOrder: true}), "", "")
		c.handler = h
		ended := make(chan error, 1)
		go func() { ended <- c.serve(nil) }()
		send := func(lines string) {
			_, _ = near.Write([]byte(lines))
			time.Sleep(time.Second) // until all of it is served
		}
		go func() {
			send("now a\r\nhold b\r\nnow c\r\nrun d\r\nnow e\r\n") // a goes before b, in the batch's write
			send("now f\r\nmute g\r\nnow h\r\n")
			h.release <- struct{}{}
			send("mute i\r\n")
			send("now j\r\n")
			_ = near.Close()
		}()
		all := "a\r\nb \r\nc\r\nd \r\ne\r\nf\r\nh\r\nj\r\n"
		mustRead(t, near, all)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if want := "a\r\n|b \r\nc\r\nd \r\ne\r\nf\r\nh\r\n|j\r\n|"; counted.writes != want {
			t.Errorf("writes %q, want %q", counted.writes, want)
		}
		if len(c.replies.order.spots) != 0 {
			t.Error("the line is not empty")
		}
	})
}

// TestOrderJoins checks that short answers behind a request share a place, over many batches,
// and that they take little more memory than they have bytes.
func TestOrderJoins(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := newText()
		budget := NewBudget(64 << 20)
		nc, c, ended := servePipe(t, h, Limits{Framing: h, InOrder: true, Budget: budget})
		const batches = 3000
		line := "now " + strings.Repeat("x", 20) + "\r\n"
		go func() {
			_, _ = nc.Write([]byte("hold a\r\n"))
			for range batches {
				_, _ = nc.Write([]byte(line))
			}
		}()
		time.Sleep(time.Second)
		c.outbox.mu.Lock()
		bytes := batches * len(line[len("now "):])
		if l := &c.replies.order; c.outbox.lined != bytes || len(l.spots) > 3+bytes/shortAnswer {
			t.Errorf("%d bytes of %d have %d places", c.outbox.lined, bytes, len(l.spots))
		} else if l.short < int64(bytes) || l.short > int64(bytes)*3/2 {
			t.Errorf("%d bytes are held for %d", l.short, bytes)
		}
		if n, want := c.outbox.share.used.Load(), c.replies.order.short-freeInLine; n != want {
			t.Errorf("%d bytes are charged, want %d", n, want)
		}
		c.outbox.mu.Unlock()
		close(h.release)
		mustRead(t, nc, "a \r\n"+strings.Repeat(line[len("now "):], batches))
		_ = nc.Close()
		<-ended
		empty(t, c, budget)
	})
}

// TestOrderOfLongAnswers checks that long answers of a connection in order are made in their
// order, since a shorter one cannot overtake another one.
func TestOrderOfLongAnswers(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		c := newConn(far, newShared(Limits{Framing: newText(), InOrder: true}), "", "")
		release, made := make(chan struct{}), ""
		for i, size := range []int{1, 100_000, 10} {
			p, _ := c.Begin(nil)
			c.Long(p, size, func() []byte {
				<-release
				made += fmt.Sprint(i)
				return fmt.Append(nil, i)
			})
		}
		time.Sleep(time.Second)
		close(release)
		mustRead(t, near, "012")
		if made != "012" {
			t.Errorf("the answers were made in the order %s", made)
		}
		_ = near.Close()
		_ = far.Close()
	})
}

type countedWrites struct {
	net.Conn
	writes string
}

func (c *countedWrites) Write(b []byte) (int, error) {
	c.writes += string(b) + "|"
	return c.Conn.Write(b)
}

// TestOrderIsBounded checks that a connection is not read from while too many bytes wait
// behind a request, and that these bytes are charged.
func TestOrderIsBounded(t *testing.T) {
	testenv.Takes(t, 2*time.Second)
	testenv.ReadsClock(t, 20*time.Millisecond, "the connection must not be read from")
	for _, op := range []string{"now", "big"} {
		t.Run(op, func(t *testing.T) {
			h := newText()
			s, dial, _ := serveText(t, h, "unix", Limits{})
			nc := dial()
			mustWrite(t, nc, []byte("hold 0 0\r\n"))
			lines, want := script(rand.New(rand.NewPCG(1, 1)), 80000, op)
			go func() { _, _ = nc.Write([]byte(lines)) }()
			var last int64
			eventually(t, "the connection to stand still", s, func(st Stats) bool {
				if last = st.BytesIn; st.Buffers.Answers < maxQueued {
					return false
				}
				time.Sleep(20 * time.Millisecond)
				return s.Stats().BytesIn == last
			})
			answers := s.Stats().Buffers.Answers
			if most := int64(3*maxQueued + pins); answers < maxQueued || answers > most {
				t.Errorf("%d bytes of answers wait, want %d to %d", answers, maxQueued, most)
			}
			if last > int64(len(lines)*3/4) {
				t.Errorf("%d of %d bytes have been read", last, len(lines))
			}
			close(h.release)
			mustRead(t, bufio.NewReaderSize(nc, 1<<20), string(answerTo("0", 0))+want)
			_ = nc.Close()
			<-h.ended
			allGiven(t, s)
		})
	}
}

// TestOrderMaxInFlight checks that MaxInFlight holds, and that the reader lets out what it
// has before it waits.
func TestOrderMaxInFlight(t *testing.T) {
	testenv.ReadsClock(t, 10*time.Millisecond, "no further request may begin")
	h := newText()
	s, dial, _ := serveText(t, h, "unix", Limits{MaxInFlight: 2})
	nc := dial()
	mustWrite(t, nc, []byte("now a\r\nhold b 1\r\nhold c 1\r\nnow d\r\nhold e 1\r\nnow f\r\n"))
	mustRead(t, nc, "a\r\n")
	eventually(t, "two to wait", s, func(st Stats) bool { return st.InFlight == 2 })
	time.Sleep(10 * time.Millisecond)
	if n := s.Stats().InFlight; n != 2 {
		t.Errorf("%d wait", n)
	}
	close(h.release)
	mustRead(t, nc, "b x\r\nc x\r\nd\r\ne x\r\nf\r\n")
}

// TestOrderEnds checks that the end of a connection, however it comes, leaves nothing while
// requests wait.
func TestOrderEnds(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		for name, end := range map[string]func(nc net.Conn, c *Conn){
			"client": func(nc net.Conn, _ *Conn) { _ = nc.Close() },
			"kill":   func(_ net.Conn, c *Conn) { c.Kill() },
			"line":   func(nc net.Conn, _ *Conn) { _, _ = nc.Write([]byte("unknown\r\n")) },
			"closes": func(_ net.Conn, c *Conn) { c.shutdown() },
		} {
			h := newText()
			budget := NewBudget(64 << 20)
			nc, c, ended := servePipe(t, h, Limits{Framing: h, InOrder: true, Budget: budget, WriteTimeout: time.Second})
			_, _ = nc.Write([]byte("hold a\r\nrun b 100\r\nbig c 100000\r\nhold d 50000\r\nrun e 20000\r\nnow f\r\nbig g 3000\r\n"))
			time.Sleep(time.Second)
			end(nc, c)
			time.Sleep(time.Second)
			if name == "kill" {
				if n := c.outbox.share.used.Load(); n != 0 {
					t.Errorf("%s: answers of %d bytes wait", name, n)
				}
			} else {
				c.outbox.mu.Lock()
				if n := c.outbox.lined; n < 120_000 {
					t.Errorf("%s: answers of %d bytes wait", name, n)
				}
				c.outbox.mu.Unlock()
			}
			close(h.release)
			if name == "closes" || name == "line" {
				mustRead(t, nc, string(answerTo("a", 0))+string(answerTo("b", 100))+string(answerTo("c", 100000))+
					string(answerTo("d", 50000))+string(answerTo("e", 20000))+"f\r\n"+string(answerTo("g", 3000)))
			}
			<-ended
			_ = nc.Close()
			time.Sleep(time.Minute)
			empty(t, c, budget)
		}
	})
}

// TestOrderWithoutRoom checks that a long answer to a read in the line gives way to a short
// one if there is no memory, and that the connection ends if there is none.
func TestOrderWithoutRoom(t *testing.T) {
	for _, refuses := range []bool{false, true} {
		h := newText()
		h.refuses = refuses
		s, dial, _ := serveText(t, h, "unix", Limits{Budget: NewBudget(8 << 20)})
		nc := dial()
		var first, begun sync.WaitGroup
		first.Add(1)
		begun.Add(1)
		var later atomic.Int64
		h.delay = func() {
			if begun.Wait(); later.Add(1) == 2 {
				first.Wait()
			}
		}
		mustWrite(t, nc, []byte("hold a 0\r\nrun b 1500000\r\nrun b 1500000\r\nnow d\r\n"))
		eventually(t, "all to begin", s, func(st Stats) bool { return st.InFlight == 3 })
		begun.Done()
		eventually(t, "one answer", s, func(st Stats) bool { return st.Buffers.Answers > 1_000_000 })
		first.Done()
		if refuses {
			eventually(t, "all to be given", s, func(st Stats) bool { return st.Buffers.Answers == 0 })
			close(h.release)
			if err := <-h.ended; !errors.Is(err, ErrBusy) {
				t.Error(err)
			}
		} else {
			eventually(t, "the others", s, func(st Stats) bool { return st.InFlight == 1 })
			close(h.release)
			b := string(answerTo("b", 1500000))
			got := make([]byte, len("a \r\n"+b+"INSTEAD\r\nd\r\n"))
			if _, err := io.ReadFull(nc, got); err != nil {
				t.Fatal(err)
			}
			if s := string(got); s != "a \r\n"+b+"INSTEAD\r\nd\r\n" && s != "a \r\nINSTEAD\r\n"+b+"d\r\n" {
				t.Errorf("%.20q to %q", s, s[len(s)-20:])
			}
			_ = nc.Close()
			<-h.ended
		}
		allGiven(t, s)
	}
}

// TestOrderSlowReader checks that a client that takes no answers is cut off, though requests
// wait.
func TestOrderSlowReader(t *testing.T) {
	for _, over := range []string{"unix", "tcp"} {
		h := newText()
		s, dial, _ := serveText(t, h, over, Limits{WriteTimeout: 50 * time.Millisecond})
		nc := dial()
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for range 100 {
				if _, err := nc.Write([]byte("run a 1000000\r\nbig b 1000000\r\nanswer c 10\r\n")); err != nil {
					return
				}
			}
		}()
		if err := <-h.ended; !errors.Is(err, ErrSlowReader) {
			t.Errorf("ended with %v", err)
		}
		<-sent
		if st := s.Stats(); st.SlowReaders != 1 {
			t.Errorf("%+v", st)
		}
		allGiven(t, s)
	}
}
