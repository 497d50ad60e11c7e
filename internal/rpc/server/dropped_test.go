package server

import (
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/peertest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestDroppedFrameEnds checks that a connection goes on behind a dropped frame whose last
// byte comes alone.
func TestDroppedFrameEnds(t *testing.T) {
	s, dial, _ := serve(t, newEcho(), Limits{Budget: quota.NewBudget(256 << 10)})
	nc := dial()
	rest := startFrame(t, nc, 1, 1<<20, 600<<10)
	if _, _, err := version(t, nc); err == nil {
		t.Fatal("there was room")
	}
	if _, err := nc.Write(rest); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rest to come", s, func(st Stats) bool { return st.BytesIn > 1<<20 })
	if _, err := nc.Write(getFrame(9, "after")); err != nil {
		t.Fatal(err)
	}
	if p := readReply(t, nc); p.ID != 9 {
		t.Errorf("%+v", p)
	}
}

// servePipe serves one connection over a pipe.
func servePipe(t *testing.T, h Handler, l Limits) (nc net.Conn, c *Conn, ended chan error) {
	t.Helper()
	here, there := net.Pipe()
	c = connOf(there, newShared(l), "uid 0")
	c.handler = h
	ended = make(chan error, 1)
	go func() { ended <- c.serve() }()
	return here, c, ended
}

// TestKilledWithinBatch checks that a connection that is killed in a batch ends at once,
// even if the deadline of a frame that has begun is set after that.
func TestKilledWithinBatch(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := &servedHandler{echoHandler: &echoHandler{echo: newEcho()}}
		nc, c, ended := servePipe(t, h, Limits{})
		defer nc.Close()
		h.served = c.Kill
		go func() { _, _ = nc.Write([]byte{0, 0}) }()
		began := time.Now()
		<-ended
		if took := time.Since(began); took > time.Second {
			t.Errorf("it has ended after %v", took)
		}
	})
}

// TestFailsWithinBatch checks the same of a connection whose answers cannot be written.
func TestFailsWithinBatch(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := &servedHandler{echoHandler: &echoHandler{echo: newEcho()}}
		nc, c, ended := servePipe(t, h, Limits{})
		defer nc.Close()
		h.served = func() { c.outbox.fail(ErrSlowReader) }
		go func() { _, _ = nc.Write([]byte{0, 0}) }()
		began := time.Now()
		if err := <-ended; !errors.Is(err, ErrSlowReader) {
			t.Errorf("it ends with %v", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it has ended after %v", took)
		}
	})
}

// TestFailsAsItGives checks the same of one whose frame gives its memory to others at that moment.
func TestFailsAsItGives(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := &servedHandler{echoHandler: &echoHandler{echo: newEcho()}}
		nc, c, ended := servePipe(t, h, Limits{})
		defer nc.Close()
		batches := 0
		h.served = func() {
			if batches++; batches == 2 { // the deadline of the frame stays as it is
				c.outbox.fail(ErrSlowReader)
				c.frame.wanted.Store(true)
			}
		}
		go func() {
			_, _ = nc.Write([]byte{0, 0})
			_, _ = nc.Write([]byte{0})
		}()
		began := time.Now()
		<-ended
		if took := time.Since(began); took > time.Second {
			t.Errorf("it has ended after %v", took)
		}
	})
}

// servedHandler calls served when a batch has been served.
type servedHandler struct {
	*echoHandler
	served func()
}

func (h *servedHandler) Served() { h.served() }

// TestTimeBehindDroppedFrame checks that a frame that begins behind a dropped one has its
// own FrameTimeout.
func TestTimeBehindDroppedFrame(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		nc, _, ended := servePipe(t, &echoHandler{echo: newEcho()}, Limits{Budget: quota.NewBudget(256 << 10), FrameTimeout: 30 * time.Second})
		busy := make(chan *wire.Error, 1)
		go func() {
			_, _, e := version(t, nc)
			busy <- e
		}()
		rest := startFrame(t, nc, 1, 1<<20, 600<<10)
		if <-busy == nil {
			t.Fatal("there was room")
		}
		time.Sleep(20 * time.Second)
		next := getFrame(9, "after")
		if _, err := nc.Write(append(rest, next[:6]...)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		go func() { _, _ = nc.Write(next[6:]) }()
		if p, err := tryReadReply(nc); err != nil || p.ID != 9 {
			t.Errorf("%+v, %v", p, err)
		}
		_ = nc.Close()
		<-ended
	})
}

// TestFewBytesWait checks that a connection with only a few bytes of a frame does not end
// if there is no memory, even if the connection does not show whether a read waits.
func TestFewBytesWait(t *testing.T) {
	for _, when := range []string{"before they come", "and another takes what it holds"} {
		t.Run(when, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				budget := quota.NewBudget(1 << 20)
				nc, c, ended := servePipe(t, &echoHandler{echo: newEcho()}, Limits{Budget: budget})
				hog := budget.Open("uid 0", "")
				if when == "before they come" {
					hog.Force(quota.ForFrames, 2<<20)
				}
				frame := getFrame(9, "after")
				if _, err := nc.Write(frame[:3]); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				c.GiveMemory()
				synctest.Wait()
				hog.Give(quota.ForFrames, hog.Used())
				go func() { _, _ = nc.Write(frame[3:]) }()
				if p, err := tryReadReply(nc); err != nil || p.ID != 9 {
					t.Errorf("%+v, %v", p, err)
				}
				_ = nc.Close()
				<-ended
			})
		})
	}
}

// TestLateWakeUp checks that a wake-up by a connection that wants memory is not taken for
// the end of the frame's time, even if it comes after the reader has looked.
func TestLateWakeUp(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		nc, c, ended := servePipe(t, &echoHandler{echo: newEcho()}, Limits{})
		frame := getFrame(9, "after")
		if _, err := nc.Write(frame[:6]); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		_ = c.socket.Conn.SetReadDeadline(time.Unix(1, 0)) // the second half of GiveMemory
		synctest.Wait()
		go func() { _, _ = nc.Write(frame[6:]) }()
		if p, err := tryReadReply(nc); err != nil || p.ID != 9 {
			t.Errorf("%+v, %v", p, err)
		}
		_ = nc.Close()
		<-ended
	})
}

// TestFramesWhileMemoryComesAndGoes checks that each frame is answered once, with its
// length or BUSY, however frames are cut and whenever memory is short or others want it,
// on the socket and over TLS.
func TestFramesWhileMemoryComesAndGoes(t *testing.T) {
	for _, over := range []string{"socket", "TLS"} {
		t.Run(over, func(t *testing.T) {
			served, busy := 0, 0
			for seed := uint64(1); seed == 1 || seed < 100 && (served == 0 || busy == 0); seed++ {
				n := framesComeAndGo(t, over, seed)
				served, busy = served+framesAtOnce-n, busy+n
			}
			if served == 0 || busy == 0 {
				t.Errorf("too tame a run: %d were served, %d were BUSY", served, busy)
			}
		})
	}
}

const framesAtOnce = 300

// framesComeAndGo sends framesAtOnce frames, and returns how many were BUSY.
func framesComeAndGo(t *testing.T, over string, seed uint64) (busy int) {
	testenv.ReadsClock(t, 300*time.Microsecond, "memory and bytes come at random moments; nothing is measured")
	rnd := rand.New(rand.NewPCG(1, seed))
	budget := quota.NewBudget(1 << 20)
	near, far := ends(t, over)
	c := connOf(far, newShared(Limits{Budget: budget}), "uid 0")
	c.handler = &echoHandler{echo: newEcho()}
	ended := make(chan error, 1)
	go func() { ended <- c.serve() }()
	stop := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() {
		hog := budget.Open("uid 0", "")
		rnd := rand.New(rand.NewPCG(2, seed))
		for {
			select {
			case <-stop:
				hog.Close()
				return
			default:
			}
			n := rnd.Int64N(1 << 20)
			hog.Force(quota.ForFrames, n)
			if rnd.IntN(4) == 0 {
				c.GiveMemory()
			}
			time.Sleep(time.Duration(rnd.IntN(300)) * time.Microsecond)
			hog.Give(quota.ForFrames, n)
		}
	})
	lengths := map[uint64]int{}
	var all []byte
	for id := range uint64(framesAtOnce) {
		n := rnd.IntN(1 << (4 + rnd.IntN(15)))
		lengths[id+1] = n
		all = wire.AppendRequest(all, &wire.Request{ID: id + 1, Op: wire.OpSet, Key: []byte("k"), Value: make([]byte, n), TTLMS: wire.TTLDefault})
	}
	others.Go(func() {
		for len(all) > 0 {
			n := min(len(all), 1+rnd.IntN(1<<(1+rnd.IntN(17))))
			if _, err := near.Write(all[:n]); err != nil {
				return // there is no answer then
			}
			all = all[n:]
			if rnd.IntN(3) == 0 {
				time.Sleep(time.Duration(rnd.IntN(200)) * time.Microsecond)
			}
		}
	})
	for range framesAtOnce {
		id, n, err := version(t, near)
		want, there := lengths[id]
		delete(lengths, id)
		switch {
		case !there:
			t.Fatalf("an answer to %d, which was answered or is none", id)
		case err != nil && err.Status == wire.Busy:
			busy++
		case err != nil || n != uint64(want):
			t.Fatalf("frame %d of %d bytes: %d, %v", id, want, n, err)
		}
	}
	close(stop)
	others.Wait()
	_ = near.Close()
	<-ended
	budget.DropBuffers()
	if n := budget.Stats().Total(); n != 0 {
		t.Errorf("%d bytes are held at the end", n)
	}
	return busy
}

// ends returns the two ends of a connection.
func ends(t *testing.T, over string) (near, far net.Conn) {
	t.Helper()
	if over == "TLS" {
		a := peertest.NewAuthority(t, "one")
		near, far = tcp(t)
		client := tls.Client(near, &tls.Config{InsecureSkipVerify: true})
		server := transport.Secure(far, func(below net.Conn) *tls.Conn {
			return tls.Server(below, &tls.Config{Certificates: []tls.Certificate{a.Certificate(t, []string{"b"})}})
		})
		done := make(chan error, 1)
		go func() { done <- client.Handshake() }()
		testenv.Must(t, errors.Join(server.Handshake(), <-done))
		return client, server
	}
	return tcp(t)
}

func tcp(t *testing.T) (near, far net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	testenv.Must(t, err)
	defer ln.Close()
	if near, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

// TestKilledByItsHandler checks that nothing of what a handler has answered goes once it has killed
// its connection, over a socket.
func TestKilledByItsHandler(t *testing.T) {
	near, far := tcp(t)
	defer near.Close()
	c := connOf(far, newShared(Limits{}), "")
	c.handler = killer{}
	ended := make(chan error, 1)
	go func() { ended <- c.serve() }()
	if _, err := near.Write(getFrame(1, "x")); err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(near); len(b) > 0 {
		t.Errorf("read %q", b)
	}
	if err := <-ended; !errors.Is(err, errKilled) {
		t.Errorf("it ends with %v", err)
	}
}

// killer kills its connection, and answers.
type killer struct{ values }

func (killer) Serve(c *Conn, _ [][]byte) error {
	c.Kill()
	c.Out = append(c.Out, "done"...)
	return nil
}
