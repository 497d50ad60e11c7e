package server

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// startFrame sends the first come bytes of a SET of n bytes, and returns the rest.
func startFrame(t testing.TB, nc net.Conn, id uint64, n, come int) (rest []byte) {
	t.Helper()
	b := wire.AppendRequest(nil, &wire.Request{ID: id, Op: wire.OpSet, Key: []byte("k"), Value: make([]byte, n), TTLMS: wire.TTLDefault})
	if _, err := nc.Write(b[:come]); err != nil {
		t.Fatal(err)
	}
	return b[come:]
}

// version reads the answer of echo to a SET: the value's length.
func version(t testing.TB, nc net.Conn) (id uint64, n uint64, e *wire.Error) {
	t.Helper()
	_ = nc.SetDeadline(testenv.Deadline())
	var head [wire.LengthSize]byte
	if _, err := io.ReadFull(nc, head[:]); err != nil {
		t.Fatal(err)
	}
	frame := make([]byte, wire.FrameLength(head[:]))
	if _, err := io.ReadFull(nc, frame); err != nil {
		t.Fatal(err)
	}
	var p wire.Reply
	testenv.Must(t, wire.DecodeReply(wire.OpSet, frame, &p))
	if p.Status != wire.OK {
		e = &wire.Error{Status: p.Status, Message: string(p.Message)}
	}
	return p.ID, p.Version, e
}

// TestAnnouncedFramesTakeNothing checks that a frame is charged for memory only as its
// bytes come.
func TestAnnouncedFramesTakeNothing(t *testing.T) {
	s, dial, _ := serve(t, newEcho(), Limits{Budget: quota.NewBudget(32 << 20)})
	for range 8 {
		startFrame(t, dial(), 1, 8<<20, 5)
	}
	eventually(t, "all to have begun", s, func(st Stats) bool { return st.BytesIn == 8*5 })
	other := dial()
	go func() { _, _ = other.Write(startFrame(t, other, 2, 8<<20, 1)) }()
	if id, n, err := version(t, other); id != 2 || n != 8<<20 || err != nil {
		t.Errorf("another's frame: answer to %d, %d, %v", id, n, err)
	}
	s.Limits().Budget.DropBuffers() // the reusable buffers of the other client's frame
	if n := s.Limits().Budget.Stats().Frames; n > 8*transport.AlwaysAccepted {
		t.Errorf("%d bytes are taken for 8 frames of which 5 bytes have come", n)
	}
}

// TestFrameWithoutRoom checks that a frame without memory is answered at once, and that
// the connection goes on behind it.
func TestFrameWithoutRoom(t *testing.T) {
	s, dial, _ := serve(t, newEcho(), Limits{Budget: quota.NewBudget(16 << 20)})
	var rests [][]byte
	var conns []net.Conn
	for i := range 4 {
		nc := dial()
		conns = append(conns, nc)
		rests = append(rests, startFrame(t, nc, uint64(i), 8<<20, 7<<20))
		if i < 3 {
			continue
		}
		if id, _, err := version(t, nc); id != 3 || err == nil || err.Status != wire.Busy || !strings.Contains(err.Message, "buffer_size 16.0 MiB") {
			t.Errorf("the last frame: answer to %d, %v", id, err)
		}
	}
	busy := 0
	for i, nc := range conns {
		go func() { _, _ = nc.Write(append(rests[i], getFrame(9, "after")...)) }()
		if i < 3 {
			if _, n, err := version(t, nc); err == nil && n != 8<<20 {
				t.Errorf("frame %d has %d bytes", i, n)
			} else if err != nil {
				busy++
			}
		}
		if p := readReply(t, nc); p.ID != 9 || string(p.Value) != "after" {
			t.Errorf("behind frame %d: %+v", i, p)
		}
	}
	if busy == 3 || s.Stats().Dropped != int64(busy+1) {
		t.Errorf("%d of 3 frames found no room, %d were dropped", busy, s.Stats().Dropped)
	}
	allGiven(t, s)
}

// TestHalfFramesGive checks that half frames of one process give way to a frame of
// another process, and are answered.
func TestHalfFramesGive(t *testing.T) {
	h := newEcho()
	h.tenants = []string{"uid 1", "uid 1", "uid 1", "uid 2"}
	s, dial, _ := serve(t, h, Limits{Budget: quota.NewBudget(16 << 20)})
	const half = 4<<20 - 100
	for i := range 3 {
		startFrame(t, dial(), uint64(i), 5<<20, half)
		want := int64(i+1) * half // or more, by how much came at once
		eventually(t, "a half frame to be held", s, func(Stats) bool { return s.Limits().Budget.Stats().Frames >= want })
	}
	other := dial()
	go func() { _, _ = other.Write(startFrame(t, other, 7, 3<<20, 1)) }()
	if _, n, err := version(t, other); n != 3<<20 || err != nil {
		t.Errorf("another user's frame: %d bytes, %v", n, err)
	}
	eventually(t, "one connection to give, and its frame to be dropped", s, func(st Stats) bool {
		return st.Dropped == 1 && s.Limits().Budget.Stats().Taken == 1
	})
}

// TestSmallHalfFrames checks that many connections with half a frame of 60 KB stay within
// the budget, and that each client is told.
func TestSmallHalfFrames(t *testing.T) {
	const conns = 400
	s, dial, _ := serve(t, newEcho(), Limits{Budget: quota.NewBudget(8 << 20)})
	var told sync.WaitGroup
	for i := range conns {
		nc := dial()
		startFrame(t, nc, uint64(i), 61_000, 60_000)
		told.Go(func() {
			_ = nc.SetReadDeadline(testenv.Deadline())
			_, _ = tryReadReply(nc) // BUSY, or the end
		})
	}
	eventually(t, "those beyond the budget to be told", s, func(st Stats) bool { return st.BytesIn == conns*60_000 && st.Dropped > conns/2 })
	eventually(t, "half of 8 MiB to be held, and no more than all", s, func(Stats) bool { // what is refused counts for a moment
		n := s.Limits().Budget.Stats().Total()
		return n <= 8<<20 && n >= 4<<20
	})
	other := dial()
	if _, err := other.Write(getFrame(1, "x")); err != nil {
		t.Fatal(err)
	}
	readReply(t, other)
	s.each((*Conn).Kill)
	told.Wait()
	allGiven(t, s)
}

// TestUnreadAnswers checks that the answers of a connection that does not read use a
// quarter of the budget at most. The other answers are BUSY, and none is lost.
func TestUnreadAnswers(t *testing.T) {
	back := newEcho()
	_, dialBack, _ := serve(t, back, Limits{})
	front := newEcho()
	front.to, front.patience = newTestClient(t, dialBack, rpc.ClientConfig{}), time.Minute
	s, dial, _ := serve(t, front, Limits{WriteTimeout: time.Minute, Budget: quota.NewBudget(32 << 20)})
	slow, other := dial(), dial()
	const n = 60
	var b []byte
	for i := range n {
		b = append(b, getFrame(uint64(i), "ask big 1000000")...)
	}
	if _, err := slow.Write(b); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its share to be full", s, func(Stats) bool { return s.Limits().Budget.Stats().RefusedFor["answers"] > 0 })
	if has := s.Limits().Budget.Stats().Answers; has > 32<<20/4 {
		t.Errorf("%d bytes of answers wait", has)
	}
	if _, err := other.Write(getFrame(1, "ask big 1000000")); err != nil {
		t.Fatal(err)
	}
	if p := readReply(t, other); len(p.Value) != 1_000_000 {
		t.Errorf("another's answer: %s %s", p.Status, p.Message)
	}
	busy := 0
	for range n {
		switch p := readReply(t, slow); {
		case p.Status == wire.Busy:
			busy++
		case len(p.Value) != 1_000_000:
			t.Fatalf("%s %s, %d bytes", p.Status, p.Message, len(p.Value))
		}
	}
	if busy == 0 || busy > n-5 {
		t.Errorf("%d of %d answers are BUSY", busy, n)
	}
	allGiven(t, s)
}
