package server

import (
	"errors"
	"net"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestWait checks that a reader that waits has written the answers before, holds up no other
// connection, has the memory charged that it holds, and goes on with what came meanwhile.
func TestWait(t *testing.T) {
	h := newText()
	s, dial, _ := serveText(t, h, "unix", Limits{})
	nc, last, other := dial(), dial(), dial()
	mustWrite(t, nc, []byte("now a\r\nhold b 3\r\nnow c\r\n"))
	mustRead(t, nc, "a\r\n")
	mustWrite(t, last, []byte("now a\r\nlast b 3\r\n"))
	mustRead(t, last, "a\r\n")
	eventually(t, "both to wait", s, func(st Stats) bool { return st.InFlight == 2 && st.Buffers.Answers == pins+Waits })
	for range 3 {
		mustWrite(t, other, []byte("now x\r\n"))
		mustRead(t, other, "x\r\n")
	}
	mustWrite(t, nc, []byte("now d\r\n"))
	mustWrite(t, last, []byte("now d\r\n"))
	close(h.release)
	mustRead(t, nc, "b xxx\r\nc\r\nd\r\n")
	mustRead(t, last, "b xxx\r\nd\r\n")
	if st := s.Stats(); st.InFlight != 0 {
		t.Errorf("%d are in flight", st.InFlight)
	}
	allGiven(t, s)
}

// TestWaitEndsWithClient checks that a connection whose client goes while the reader waits ends, and
// serves nothing more, and that one whose client only sends nothing more goes on.
func TestWaitEndsWithClient(t *testing.T) {
	h := newText()
	s, dial, _ := serveText(t, h, "unix", Limits{})
	gone, half := dial(), dial()
	for _, nc := range []net.Conn{gone, half} {
		mustWrite(t, nc, []byte("hold a 0\r\nnow b\r\n"))
	}
	eventually(t, "both to wait", s, func(st Stats) bool { return st.InFlight == 2 })
	_ = gone.Close()
	_ = half.(*net.UnixConn).CloseWrite()
	testenv.Eventually(t, "the end to be noticed", func() (noticed bool) {
		s.each(func(c *Conn) { noticed = noticed || errors.Is(c.outbox.failure(), errGone) })
		return noticed
	})
	close(h.release)
	mustRead(t, half, "a \r\nb\r\n")
	mustReadEnd(t, half)
	if err := errors.Join(<-h.ended, <-h.ended); !errors.Is(err, errGone) {
		t.Error(err)
	}
}

// TestWaitWithoutMemory checks that a reader does not wait if there is no memory for what it holds.
func TestWaitWithoutMemory(t *testing.T) {
	h := newText()
	budget := quota.NewBudget(2 << 20)
	other := budget.Open("other", "")
	_, dial, _ := serveText(t, h, "unix", Limits{Budget: budget})
	other.Force(quota.ForRequests, 2<<20)
	mustWrite(t, dial(), []byte("hold a 0\r\n"))
	if err := <-h.ended; !errors.Is(err, quota.ErrBusy) {
		t.Error(err)
	}
	other.Give(quota.ForRequests, 2<<20)
	other.Close()
}
