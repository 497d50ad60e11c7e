package simnet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

const a, b = "10.0.0.1", "10.0.0.2"

// pair is a network of two hosts with a connection between them.
type pair struct {
	*Net
	t            *testing.T
	ln           net.Listener
	dialed, back net.Conn
}

func connected(t *testing.T) *pair {
	t.Helper()
	n := New(1)
	ln, err := n.Host(b).Listen(7)
	testenv.Must(t, err)
	c, err := n.Host(a).Dial(t.Context(), b+":7")
	testenv.Must(t, err)
	back, err := ln.Accept()
	testenv.Must(t, err)
	return &pair{n, t, ln, c, back}
}

func (p *pair) write(c net.Conn, s string) {
	p.t.Helper()
	if k, err := c.Write([]byte(s)); k != len(s) || err != nil {
		p.t.Fatalf("wrote %d bytes: %v", k, err)
	}
}

func (p *pair) read(c net.Conn, want string) {
	p.t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		p.t.Fatalf("read %q, %v; want %q", got, err, want)
	}
}

// took returns how much virtual time f takes.
func took(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

func inBubble(t *testing.T, name string, f func(*testing.T)) {
	t.Run(name, func(t *testing.T) { bubble.Test(t, f) })
}

func TestDelayAndOrder(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		p := connected(t)
		p.SetDelay(10*time.Millisecond, 20*time.Millisecond)
		d := took(func() {
			p.write(p.dialed, "ping")
			p.read(p.back, "ping")
		})
		if d < 10*time.Millisecond || d > 20*time.Millisecond {
			t.Errorf("one way took %v, want 10 to 20 ms", d)
		}
		for i := range byte(200) { // each with its own delay
			p.write(p.dialed, string([]byte{i}))
		}
		for i := range byte(200) {
			p.read(p.back, string([]byte{i}))
		}
		if got, want := p.dialed.RemoteAddr().String(), b+":7"; got != want {
			t.Errorf("remote address %s, want %s", got, want)
		}
		if got, want := p.back.RemoteAddr().String(), p.dialed.LocalAddr().String(); got != want {
			t.Errorf("remote address %s, want %s", got, want)
		}
	})
}

func TestWindow(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		p := connected(t)
		sent := bytes.Repeat([]byte("0123456789abcde"), 100_000)
		var done bool
		go func() {
			_, err := p.dialed.Write(sent)
			done = true
			if err != nil {
				t.Error(err)
			}
			_ = p.dialed.Close()
		}()
		time.Sleep(time.Minute)
		synctest.Wait()
		if done {
			t.Error("the writer did not wait for the reader")
		}
		if k := p.back.(*conn).in.size; k != window {
			t.Errorf("%d bytes under way, want %d", k, window)
		}
		got, err := io.ReadAll(p.back)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("read %d bytes of %d, %v", len(got), len(sent), err)
		}
	})
}

func TestDeadlines(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  func(net.Conn, time.Time) error
		op   func(net.Conn) error
	}{
		{"read", net.Conn.SetReadDeadline, func(c net.Conn) error { _, err := c.Read(make([]byte, 1)); return err }},
		{"write", net.Conn.SetWriteDeadline, func(c net.Conn) error { _, err := c.Write(make([]byte, 2*window)); return err }},
		{"read by both", net.Conn.SetDeadline, func(c net.Conn) error { _, err := c.Read(make([]byte, 1)); return err }},
		{"write by both", net.Conn.SetDeadline, func(c net.Conn) error { _, err := c.Write(make([]byte, 2*window)); return err }},
	} {
		inBubble(t, tc.name, func(t *testing.T) {
			p := connected(t)
			check := func(what string, err error) {
				t.Helper()
				var ne net.Error
				if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
					t.Errorf("%s: %v", what, err)
				}
			}
			_ = tc.set(p.dialed, time.Now().Add(time.Second))
			if d := took(func() { check("ahead", tc.op(p.dialed)) }); d != time.Second {
				t.Errorf("it came after %v, want 1s", d)
			}
			check("passed", tc.op(p.dialed))
			_ = tc.set(p.dialed, time.Time{})
			time.AfterFunc(time.Minute, func() { _ = tc.set(p.dialed, time.Unix(1, 0)) })
			if d := took(func() { check("set while waiting", tc.op(p.dialed)) }); d != time.Minute {
				t.Errorf("it woke after %v, want 1m", d)
			}
		})
	}
}

func TestEnds(t *testing.T) {
	inBubble(t, "close", func(t *testing.T) {
		p := connected(t)
		p.write(p.dialed, "last words")
		_ = p.dialed.Close()
		p.read(p.back, "last words")
		if _, err := p.back.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read: %v, want EOF", err)
		}
		if err := p.dialed.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("close again: %v", err)
		}
		if _, err := p.dialed.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after close: %v", err)
		}
		p.write(p.back, "to nobody")
		time.Sleep(time.Second)
		synctest.Wait()
		if _, err := p.back.Write([]byte("more")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write to who has closed: %v", err)
		}
	})
	inBubble(t, "close wakes who waits", func(t *testing.T) {
		p := connected(t)
		time.AfterFunc(time.Second, func() { _ = p.dialed.Close() })
		if _, err := p.dialed.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	inBubble(t, "close with bytes unread", func(t *testing.T) {
		p := connected(t)
		p.write(p.dialed, "x")
		time.Sleep(time.Second)
		synctest.Wait()
		p.write(p.back, "answer")
		_ = p.back.Close()
		p.read(p.dialed, "answer")
		if _, err := p.dialed.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read: %v", err)
		}
		if _, err := p.dialed.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write: %v", err)
		}
	})
	inBubble(t, "one direction", func(t *testing.T) {
		p := connected(t)
		_ = p.dialed.(*conn).CloseWrite()
		if _, err := p.dialed.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write: %v", err)
		}
		if _, err := p.back.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read: %v, want EOF", err)
		}
		p.write(p.back, "still")
		p.read(p.dialed, "still")
	})
	inBubble(t, "of a writer that waits", func(t *testing.T) {
		p := connected(t)
		time.AfterFunc(time.Second, func() { _ = p.back.Close() })
		if _, err := p.dialed.Write(make([]byte, 2*window)); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
	})
	inBubble(t, "listener", func(t *testing.T) {
		p := connected(t)
		waiting, err := p.Host(a).Dial(t.Context(), b+":7")
		testenv.Must(t, err)
		_ = p.ln.Close()
		if _, err := p.ln.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept: %v", err)
		}
		if err := p.ln.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("close again: %v", err)
		}
		if _, err := waiting.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("who was not accepted: %v", err)
		}
		if _, err := p.Host(a).Dial(t.Context(), b+":7"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial: %v", err)
		}
		p.write(p.dialed, "who was accepted")
		p.read(p.back, "who was accepted")
		if _, err := p.Host(b).Listen(7); err != nil {
			t.Errorf("listen again: %v", err)
		}
	})
}

func TestListen(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		p := connected(t)
		if _, err := p.Host(b).Listen(7); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("a port in use: %v", err)
		}
		if _, _, err := p.Host(b).Transport(7).FinalAdvertiseAddr("", 0); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("a port in use, for memberlist: %v", err)
		}
		ln, err := p.Host(b).Listen(0)
		testenv.Must(t, err)
		for range backlog {
			if _, err := p.Host(a).Dial(t.Context(), ln.Addr().String()); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := p.Host(a).Dial(ctx, ln.Addr().String()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one more than the backlog holds: %v", err)
		}
		if _, err := ln.Accept(); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Host(a).Dial(t.Context(), ln.Addr().String()); err != nil {
			t.Errorf("when there is room again: %v", err)
		}
	})
}

func TestDialFails(t *testing.T) {
	for _, tc := range []struct {
		name, address string
		want          error
		after         time.Duration // the least duration
	}{
		{"nobody listens", b + ":8", syscall.ECONNREFUSED, 0},
		{"no such machine", "10.0.0.9:7", context.DeadlineExceeded, time.Minute},
		{"a name", "host:7", nil, 0},
		{"no port", b, nil, 0},
	} {
		inBubble(t, tc.name, func(t *testing.T) {
			p := connected(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var err error
			d := took(func() { _, err = p.Host(a).Dial(ctx, tc.address) })
			var oe *net.OpError
			if !errors.As(err, &oe) || oe.Op != "dial" || tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if d < tc.after || d > tc.after+time.Second {
				t.Errorf("it took %v, want %v", d, tc.after)
			}
		})
	}
}

func TestCut(t *testing.T) {
	for _, tc := range []struct {
		name      string
		cut       func(*Net)
		out, back bool // the directions in which data passes
	}{
		{"both ways", func(n *Net) { n.Cut(a, b) }, false, false},
		{"one way", func(n *Net) { n.CutOneWay(a, b) }, false, true},
		{"the other way", func(n *Net) { n.CutOneWay(b, a) }, true, false},
		{"one host", func(n *Net) { n.Isolate(b) }, false, false},
		{"others", func(n *Net) { n.Cut(a, "10.0.0.3"); n.Isolate("10.0.0.4") }, true, true},
	} {
		inBubble(t, tc.name, func(t *testing.T) {
			p := connected(t)
			here, there := p.Host(a).Transport(9), p.Host(b).Transport(9)
			tc.cut(p.Net)
			p.write(p.dialed, "out")
			p.write(p.back, "back")
			_, _ = here.WriteTo([]byte("out"), b+":9")
			_, _ = there.WriteTo([]byte("back"), a+":9")
			time.Sleep(time.Hour)
			synctest.Wait()
			arrived := func(c net.Conn) bool { return len(c.(*conn).in.arrived) > 0 }
			if got, want := [2]bool{arrived(p.back), arrived(p.dialed)}, [2]bool{tc.out, tc.back}; got != want {
				t.Errorf("bytes passed: %v, want %v", got, want)
			}
			if got, want := [2]bool{len(there.PacketCh()) > 0, len(here.PacketCh()) > 0}, [2]bool{tc.out, tc.back}; got != want {
				t.Errorf("datagrams passed: %v, want %v", got, want)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if _, err := p.Host(a).Dial(ctx, b+":7"); (err == nil) != (tc.out && tc.back) {
				t.Errorf("dial: %v", err)
			}
			if _, err := p.Host(b).Dial(t.Context(), b+":7"); err != nil {
				t.Errorf("dial oneself: %v", err)
			}
			time.AfterFunc(time.Minute, p.Heal)
			if _, err := p.Host(a).Dial(t.Context(), b+":7"); err != nil {
				t.Errorf("dial, until it healed: %v", err)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			p.read(p.back, "out")
			p.read(p.dialed, "back")
			p.write(p.dialed, "and on")
			p.read(p.back, "and on")
			if got, want := len(there.PacketCh()), 0; (got > want) != tc.out {
				t.Errorf("%d datagrams came after it healed", got)
			}
		})
	}
}

func TestKill(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		p := connected(t)
		old := p.Host(b)
		tr := old.Transport(9)
		accepted := make(chan error)
		go func() { _, err := p.ln.Accept(); accepted <- err }()
		p.write(p.back, "last words")
		old.Kill()
		old.Kill()
		if err := <-accepted; !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept: %v", err)
		}
		p.read(p.dialed, "last words")
		if _, err := p.dialed.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("its peer reads: %v, want EOF", err)
		}
		if _, err := p.Host(a).Dial(t.Context(), b+":7"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial: %v", err)
		}
		// The rest of the killed process can do nothing.
		if _, err := old.Dial(t.Context(), a+":7"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("it dials: %v", err)
		}
		if _, err := old.Listen(7); !errors.Is(err, net.ErrClosed) {
			t.Errorf("it listens: %v", err)
		}
		if _, err := p.back.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("it writes: %v", err)
		}
		if _, err := tr.WriteTo([]byte("x"), a+":7"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("it sends: %v", err)
		}
		// The successor can use the ports again.
		next := p.Host(b)
		if next == old {
			t.Fatal("a process was raised from the dead")
		}
		if _, err := next.Listen(7); err != nil {
			t.Error(err)
		}
		if _, _, err := next.Transport(9).FinalAdvertiseAddr("", 0); err != nil {
			t.Error(err)
		}
		if _, err := p.Host(a).Dial(t.Context(), b+":7"); err != nil {
			t.Error(err)
		}
	})
}

// TestCutWhileDialing checks that packets under way arrive later if the link is cut.
func TestCutWhileDialing(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		p := connected(t)
		p.SetDelay(time.Second, time.Second)
		time.AfterFunc(time.Second, func() { p.Cut(a, b) })
		time.AfterFunc(time.Minute, p.Heal)
		d := took(func() {
			if _, err := p.Host(a).Dial(t.Context(), b+":7"); err != nil {
				t.Error(err)
			}
		})
		if d < time.Minute {
			t.Errorf("it took %v, through a link that was cut for 1m", d)
		}
	})
}

// TestOneself checks that neither loss nor delay reaches what a host sends to itself.
func TestOneself(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		p := connected(t)
		p.SetLoss(0.9)
		p.SetDelay(time.Second, time.Second)
		d := took(func() {
			c, err := p.Host(b).Dial(t.Context(), b+":7")
			testenv.Must(t, err)
			back, err := p.ln.Accept()
			testenv.Must(t, err)
			p.write(c, "ping")
			p.read(back, "ping")
		})
		if d > 0 {
			t.Errorf("it took %v", d)
		}
	})
}

// TestDialMachineThatComes dials a machine that does not exist yet.
func TestDialMachineThatComes(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := New(1)
		time.AfterFunc(time.Minute, func() {
			if _, err := n.Host(b).Listen(7); err != nil {
				t.Error(err)
			}
		})
		d := took(func() {
			if _, err := n.Host(a).Dial(t.Context(), b+":7"); err != nil {
				t.Error(err)
			}
		})
		if d < time.Minute || d > time.Minute+time.Second {
			t.Errorf("it took %v, want 1m", d)
		}
	})
}

// TestKillWhileDialing checks that Kill also ends a Dial that waits for a link.
func TestKillWhileDialing(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		p := connected(t)
		p.Cut(a, b)
		h := p.Host(a)
		time.AfterFunc(time.Second, h.Kill)
		if _, err := h.Dial(context.Background(), b+":7"); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}

func TestLoss(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		p := connected(t)
		p.SetLoss(0.25)
		here, there := p.Host(a).Transport(9), p.Host(b).Transport(9)
		const k = 1000
		for range k {
			_, _ = here.WriteTo([]byte("x"), b+":9")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := len(there.PacketCh()); got < k*70/100 || got > k*80/100 {
			t.Errorf("%d of %d datagrams arrived, want about 750", got, k)
		}
		sent := bytes.Repeat([]byte("0123456789"), 5000)
		go func() {
			for i := 0; i < len(sent); i += 100 {
				_, _ = p.dialed.Write(sent[i : i+100])
			}
			_ = p.dialed.Close()
		}()
		var got []byte
		if d := took(func() { got, _ = io.ReadAll(p.back) }); d < retransmit {
			t.Errorf("it took %v, as if nothing was lost", d)
		}
		if !bytes.Equal(got, sent) {
			t.Errorf("a stream lost bytes: %d of %d came", len(got), len(sent))
		}
	})
}

func TestDatagrams(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := New(1)
		n.SetDelay(time.Millisecond, 10*time.Millisecond)
		here, there := n.Host(a).Transport(9), n.Host(b).Transport(0)
		_, port, err := there.FinalAdvertiseAddr("", 0)
		if err != nil || port == 0 {
			t.Fatal(port, err)
		}
		to := address(b, port)
		buf := []byte{0}
		for i := range byte(100) {
			buf[0] = i // WriteTo must not keep the buffer after it returns
			if _, err := here.WriteTo(buf, to); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		seen, overtaken := map[byte]bool{}, false
		last := byte(0)
		for len(there.PacketCh()) > 0 {
			p := <-there.PacketCh()
			seen[p.Buf[0]] = true
			overtaken = overtaken || p.Buf[0] < last
			last = p.Buf[0]
			if got, want := p.From.String(), a+":9"; got != want {
				t.Fatalf("from %s, want %s", got, want)
			}
		}
		if len(seen) != 100 || !overtaken {
			t.Errorf("%d of 100 arrived, overtaken %v", len(seen), overtaken)
		}
		for range 2 * packets {
			_, _ = here.WriteTo([]byte("x"), to)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := len(there.PacketCh()); got != packets {
			t.Errorf("%d wait, want %d", got, packets)
		}
		_ = there.Shutdown()
		if _, err := there.WriteTo([]byte("x"), a+":9"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Shutdown: %v", err)
		}
		if _, err := here.DialTimeout(to, time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial after Shutdown: %v", err)
		}
	})
}

// TestTransportStreams checks that a dialed stream comes out of the peer's channel.
func TestTransportStreams(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := New(1)
		here, there := n.Host(a).Transport(9), n.Host(b).Transport(9)
		c, err := here.DialTimeout(b+":9", time.Second)
		testenv.Must(t, err)
		p := &pair{n, t, nil, c, <-there.StreamCh()}
		p.write(c, "hello")
		p.read(p.back, "hello")
		n.Cut(a, b)
		if _, err := here.DialTimeout(b+":9", time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("through a cut link: %v", err)
		}
	})
}

// TestSeed checks that one seed gives one sequence.
func TestSeed(t *testing.T) {
	run := func(t *testing.T, seed uint64) (arrived []byte) {
		bubble.Test(t, func(*testing.T) {
			n := New(seed)
			n.SetLoss(0.5)
			here, there := n.Host(a).Transport(9), n.Host(b).Transport(9)
			for i := range byte(100) {
				_, _ = here.WriteTo([]byte{i}, b+":9")
			}
			time.Sleep(time.Second)
			synctest.Wait()
			for len(there.PacketCh()) > 0 {
				arrived = append(arrived, (<-there.PacketCh()).Buf[0])
			}
		})
		return arrived
	}
	first := run(t, 1)
	if !bytes.Equal(first, run(t, 1)) {
		t.Error("the same seed, another sequence")
	}
	if bytes.Equal(first, run(t, 2)) {
		t.Error("another seed, the same sequence")
	}
}

var _ memberlist.Transport = (*transport)(nil)

// TestStop checks that data for a stopped process waits, on connections and as datagrams.
// When the process runs, the given part arrives first and the rest later.
func TestStop(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		p := connected(t)
		from, to := p.Host(a).Transport(8), p.Host(b).Transport(8)
		send := func() {
			p.write(p.dialed, "x")
			if _, err := from.WriteTo([]byte("y"), b+":8"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		come := func(want string, datagrams int) {
			t.Helper()
			if n := len(to.PacketCh()); n != datagrams {
				t.Errorf("%d datagrams have come, want %d", n, datagrams)
			}
			testenv.Must(t, p.back.SetReadDeadline(time.Now().Add(time.Millisecond)))
			got := make([]byte, 10)
			if n, _ := p.back.Read(got); string(got[:n]) != want {
				t.Errorf("read %q, want %q", got[:n], want)
			}
		}
		p.Stop(b)
		send()
		come("", 0)
		p.Run(b, 0) // too briefly to receive anything
		p.Stop(b)
		send()
		p.Heal()
		time.Sleep(time.Second)
		come("", 0)
		p.Run(b, 1)
		time.Sleep(time.Second)
		come("xx", 2)
		p.Stop(a) // what its timers make it send waits too
		send()
		come("", 2)
		p.Run(a, 1)
		time.Sleep(time.Second)
		come("x", 3)
	})
}
