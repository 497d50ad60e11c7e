package server

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestLongComeLast checks that short answers come before long ones that were requested
// earlier. The long ones come one after another, and only one of those that wait is in
// memory.
func TestLongComeLast(t *testing.T) {
	const longs, size = 40, 2 << 20
	testenv.ReadsClock(t, 50*time.Millisecond, "no more answers may be made than wait to be read")
	h := newEcho()
	s, dial, _ := serve(t, h, Limits{})
	nc := dial()
	// Makes a goroutine of the connection write.
	if _, err := nc.Write(getFrame(1000, "go 2097152")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it to be written", s, func(Stats) bool { return s.Limits().Budget.Stats().Answers >= size })
	var b []byte
	for i := range uint64(longs) {
		b = append(b, getFrame(i, "long 2097152")...)
	}
	if _, err := nc.Write(b); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all to have begun", s, func(st Stats) bool { return st.InFlight == longs+1 })
	if _, err := nc.Write(getFrame(999, "short")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the short one to be served", s, func(Stats) bool { return h.served.Load() == longs+2 })
	time.Sleep(50 * time.Millisecond)
	at, next := -1, uint64(0)
	for i := range longs + 2 {
		p := readReply(t, nc)
		if used := s.Limits().Budget.Stats().Answers; used > 4*size {
			t.Fatalf("%d bytes of answers wait, one has %d", used, size)
		}
		switch p.ID {
		case 999:
			at = i
			continue
		case 1000:
			continue
		}
		if p.ID != next || len(p.Value) != size {
			t.Fatalf("answer %d: to %d, %d bytes, %s", i, p.ID, len(p.Value), p.Message)
		}
		next++
	}
	if at < 0 || at > 3 {
		t.Errorf("the short answer is number %d", at)
	}
	allGiven(t, s)
}

// TestShorterOfTheLong checks that a much shorter one of the long answers comes before
// those requested earlier, and that these do not wait for ever.
func TestShorterOfTheLong(t *testing.T) {
	const longs = 20
	h := newEcho()
	s, dial, _ := serve(t, h, Limits{})
	nc := dial()
	var b []byte
	for i := range uint64(longs) {
		b = append(b, getFrame(i, "long 2097152")...)
	}
	b = append(b, getFrame(100, "long 100000")...)
	if _, err := nc.Write(b); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all to have begun", s, func(Stats) bool { return h.served.Load() == longs+1 })
	at := map[uint64]int{}
	for i := range longs {
		p := readReply(t, nc)
		at[p.ID] = i
		if i == longPatience+2 { // so much was sent that the longer ones are due
			if _, err := nc.Write(getFrame(101, "long 2000000")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if i, ok := at[100]; !ok || i > 2 {
		t.Errorf("the shorter one is number %d", i)
	}
	for range 2 {
		at[readReply(t, nc).ID] = len(at)
	}
	if at[101] != longs+1 {
		t.Errorf("one that came late is number %d", at[101])
	}
}

// TestWhile checks that a request that waits ends once nothing can be written to its
// connection any more.
func TestWhile(t *testing.T) {
	h := newEcho()
	s, dial, _ := serve(t, h, Limits{})
	nc := dial()
	if _, err := nc.Write(getFrame(1, "while")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it to wait", s, func(st Stats) bool { return st.InFlight == 1 })
	if _, err := nc.Write(getFrame(3, "big 8000000")); err != nil {
		t.Fatal(err)
	}
	_ = nc.Close()
	select {
	case <-h.ended:
	case <-testenv.Expired():
		t.Error("it waits for a client that has gone")
	}
}

// TestGone checks that a read which waits ends once its client has closed the connection, or once the
// server ends by force.
func TestGone(t *testing.T) {
	for name, end := range map[string]func(nc net.Conn, shutdown func()){
		"client": func(nc net.Conn, _ func()) { _ = nc.Close() },
		"force":  func(_ net.Conn, shutdown func()) { go shutdown() },
	} {
		t.Run(name, func(t *testing.T) {
			h := newEcho()
			s, dial, shutdown := serve(t, h, Limits{DrainTimeout: time.Millisecond})
			nc := dial()
			if _, err := nc.Write(getFrame(1, "while")); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it to wait", s, func(st Stats) bool { return st.InFlight == 1 })
			end(nc, shutdown)
			select {
			case err := <-h.ended:
				if name == "client" && err != nil { // the log does not warn of it
					t.Error(err)
				}
			case <-testenv.Expired():
				t.Error("it waits on")
			}
		})
	}
}

// awaits says whether n more reads of an account at once find memory.
func awaits(a *quota.Account, n int64) bool {
	a.Reads(n)
	defer a.Reads(-n)
	return a.Awaits()
}

// TestTakes checks that a connection whose unread answers fill its part of the budget
// takes no more, and that a connection that has ended takes none at all.
func TestTakes(t *testing.T) {
	h := newEcho()
	s, dial, _ := serve(t, h, Limits{Budget: quota.NewBudget(16 << 20)})
	nc := dial()
	b := getFrame(0, "go 1000000")
	for i := range uint64(19) {
		b = append(b, getFrame(1+i, "wait 1000000")...)
	}
	if _, err := nc.Write(b); err != nil {
		t.Fatal(err)
	}
	// Else the first answers may keep the reader from the last requests.
	eventually(t, "all to have begun", s, func(Stats) bool { return h.served.Load() == 20 })
	close(h.release)
	eventually(t, "its part to be full", s, func(Stats) bool { return s.Limits().Budget.Stats().RefusedFor["answers"] > 0 })
	c := <-h.last
	eventually(t, "the answers to wait for the client", s, func(Stats) bool { return c.outbox.blocked.Load() != 0 })
	if err := c.outbox.share.Take(1_000_000, 0); !errors.Is(err, quota.ErrBusy) {
		t.Errorf("got %v, want that its part is full", err)
	}
	// BUSY in place of long answers must not make the next ones seem short.
	eventually(t, "all to be answered", s, func(st Stats) bool { return st.InFlight == 1 })
	c.outbox.mu.Lock()
	for range 100 {
		c.replies.pushLocked(wire.AppendError(nil, 1, wire.Errorf(wire.Busy, "no room")), false, true)
	}
	c.outbox.mu.Unlock()
	if awaits(c.Account(), 3) {
		t.Error("the next answers are expected to be short")
	}
	_ = nc.Close()
	<-h.ended
}

// TestExpectations checks that only answers to reads change the expected length.
func TestExpectations(t *testing.T) {
	h := newEcho()
	_, dial, _ := serve(t, h, Limits{Budget: quota.NewBudget(16 << 20)})
	nc := dial()
	if _, err := nc.Write(getFrame(1, "go 1000000")); err != nil {
		t.Fatal(err)
	}
	readReply(t, nc)
	c := <-h.last
	answer := func(reads bool) {
		for range 100 {
			c.Begin(nil)
			c.Run(func() ([]byte, bool) { return wire.AppendReply(nil, wire.OpGet, &wire.Reply{}), reads })
			readReply(t, nc)
		}
	}
	if answer(false); awaits(c.Account(), 3) {
		t.Error("answers to what is no read count")
	}
	if answer(true); !awaits(c.Account(), 3) {
		t.Error("answers to reads do not count")
	}
}

// TestBeginWaitsForRoom checks that a request begins if there is room, or else when other
// requests have ended.
func TestBeginWaitsForRoom(t *testing.T) {
	h := newEcho()
	h.most = 3
	s, dial, _ := serve(t, h, Limits{})
	nc := dial()
	var b []byte
	for i := range uint64(10) {
		b = append(b, getFrame(i, "room")...)
	}
	if _, err := nc.Write(b); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a fourth to come", s, func(Stats) bool { return h.served.Load() > 3 })
	for range 10 {
		h.release <- struct{}{}
		if p := readReply(t, nc); p.Status != wire.OK {
			t.Errorf("%s %s", p.Status, p.Message)
		}
	}
	if n := h.crowd.Load(); n != 3 {
		t.Errorf("%d were under way at once, want 3", n)
	}
}

// TestBeginSeesOthersRoom checks that a connection that waits for room sees the room that
// others of its process have left.
func TestBeginSeesOthersRoom(t *testing.T) {
	testenv.ReadsClock(t, 4*roomAgain, "the second request must not begin")
	h := newEcho()
	s, dial, _ := serve(t, h, Limits{Budget: quota.NewBudget(64 << 20)}) // 4 MiB for reads
	nc := dial()
	if _, err := nc.Write(getFrame(1, "go 10")); err != nil {
		t.Fatal(err)
	}
	readReply(t, nc)
	c := <-h.last
	other := s.Limits().Budget.Open("uid 0", "")
	if c.account.Process() != other.Process() {
		t.Fatal("not of one process")
	}
	defer other.Close()
	other.Reads(100)
	if _, err := nc.Write(append(getFrame(2, "awaits"), getFrame(3, "awaits")...)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both to come", s, func(st Stats) bool { return h.served.Load() == 3 && st.InFlight > 0 })
	time.Sleep(4 * roomAgain)
	if n := s.Stats().InFlight; n != 1 {
		t.Errorf("%d have begun, want the first only: there is no room", n)
	}
	other.Reads(-100)
	eventually(t, "the second to begin, though the first goes on", s, func(st Stats) bool { return st.InFlight == 2 })
	for range 2 {
		h.release <- struct{}{}
		readReply(t, nc)
	}
}

// TestRoomWithoutMemory checks that a connection that waits for room is not ended if
// there is no memory to wait: its request begins.
func TestRoomWithoutMemory(t *testing.T) {
	const conns = 20
	testenv.ReadsClock(t, 50*time.Millisecond, "no connection may be ended")
	h := newEcho() // it has no room
	s, dial, _ := serve(t, h, Limits{Budget: quota.NewBudget(1 << 20)})
	var clients []net.Conn
	for range conns {
		nc := dial()
		_ = nc.SetDeadline(testenv.Deadline())
		if _, err := nc.Write(append(getFrame(1, "wait"), getFrame(2, "room")...)); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, nc)
	}
	eventually(t, "all to be served", s, func(Stats) bool { return h.served.Load() == 2*conns })
	time.Sleep(50 * time.Millisecond)
	if st := s.Stats(); st.OverBudget > 0 {
		t.Errorf("%d connections were ended that only wait for others", st.OverBudget)
	}
	h.room.Store(-2 * conns)
	close(h.release)
	for _, nc := range clients {
		for range 2 {
			if p, err := tryReadReply(nc); err != nil || p.Status != wire.OK {
				t.Errorf("%s %v", p.Status, err)
			}
		}
	}
	allGiven(t, s)
}
