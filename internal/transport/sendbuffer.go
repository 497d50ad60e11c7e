package transport

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar/internal/quota"
)

// sendBuffer is the kernel's buffer for what a socket sends. What the peer has not read is
// memory of this process, also after the socket was closed. The buffer begins with a size that is
// part of what every connection takes. It grows for a long write, and for a write that finds no
// room, as long as the budget has memory for that. A write that still finds no room waits as for
// any full buffer. The buffer of an idle connection shrinks again: see ShrinkIdle.
//
// Only the goroutine that writes uses it, and while nothing is written its owner.
type sendBuffer struct {
	account *quota.Account
	least   int // zero: the system decides, and nothing is charged
	size    int // SO_SNDBUF, of which the kernel makes the double
}

const (
	// mostSend is SO_SNDBUF of a buffer as large as Linux makes it by default.
	mostSend = 104 << 10
	// mostMessage is the longest message that the kernel makes of a part of a write. The last
	// one may exceed the buffer; half of the buffer bounds it too.
	mostMessage = 48 << 10
)

// taken is what a buffer of a size takes of the kernel's memory at most, in bytes.
func taken(size int) int64 { return int64(2*size + min(size, mostMessage)) }

// fits says whether the buffer is large enough for a write of n bytes.
func (sb *sendBuffer) fits(n int) bool {
	return sb.size == 0 || sb.size >= mostSend || n+n/4 <= 2*sb.size
}

// grow makes the buffer of a descriptor larger: for a write of n bytes, and twice as large at
// least. It returns false if it cannot.
func (sb *sendBuffer) grow(fd, n int) bool {
	if sb.size == 0 || sb.size >= mostSend {
		return false
	}
	size := 2 * sb.size
	for size < mostSend && n+n/4 > 2*size {
		size *= 2
	}
	size = min(size, mostSend)
	more := taken(size) - taken(sb.size)
	if !sb.account.TakeSocket(more) {
		return false
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, size) != nil {
		sb.account.Give(quota.ForSockets, more)
		return false
	}
	sb.size = size
	return true
}

// BoundSend makes the kernel's buffer for what the socket sends small, of size bytes, and has account
// decide how far it grows: see sendBuffer. Zero leaves it to the system. EndSend is called at the end.
func (s *Socket) BoundSend(account *quota.Account, size int) {
	c, ok := s.Conn.(interface{ SetWriteBuffer(int) error })
	if size > 0 && ok && c.SetWriteBuffer(size) == nil {
		s.send = sendBuffer{account: account, least: size, size: size}
	}
}

// ShrinkIdle makes the send buffer small again, if the peer has read everything.
func (s *Socket) ShrinkIdle() {
	if least := s.send.least; s.send.size > least {
		_ = s.raw.Control(func(fd uintptr) {
			if Unsent(int(fd)) == 0 && unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, least) == nil {
				s.EndSend()
			}
		})
	}
}

// EndSend gives back what the kernel's buffer has taken of the account.
func (s *Socket) EndSend() {
	if b := &s.send; b.size > b.least {
		b.account.Give(quota.ForSockets, taken(b.size)-taken(b.least))
		b.size = b.least
	}
}

// InKernel returns how many bytes of what was written the kernel has, for the peer to read.
func (s *Socket) InKernel() (n int) {
	if s.raw != nil {
		_ = s.raw.Control(func(fd uintptr) { n = Unsent(int(fd)) })
	}
	return n
}

// fewUnsent is less than the kernel counts for any bytes. While it frees the last ones it still counts
// one, and does not tell when that has gone.
const fewUnsent = 256

// Linger waits until the peer has read what the kernel has for it, or has gone, or over says that
// the wait is over: see EndLinger. Until then the bytes are memory of this process, and the
// connection keeps its place and its share. So a client cannot leave behind more than it may have
// at once.
func (s *Socket) Linger(over func() bool) {
	if s.send.least == 0 || over() || s.InKernel() < fewUnsent {
		return
	}
	_ = s.closeBoth()
	s.lingers.Store(true)
	err := os.ErrDeadlineExceeded // whatever has ended the connection may have set a deadline
	for IsTimeout(err) {
		err = s.Conn.SetWriteDeadline(time.Time{})
		if err != nil || over() { // in this order: EndLinger sets a deadline after that
			return
		}
		err = s.raw.Write(func(fd uintptr) bool { return Unsent(int(fd)) < fewUnsent || over() })
	}
}

// EndLinger ends Linger, once over says so.
func (s *Socket) EndLinger() {
	if s.lingers.Load() {
		_ = s.Conn.SetWriteDeadline(time.Unix(1, 0))
	}
}

// ListenTCP listens at a TCP address. The kernel's buffers of its connections are what it is told,
// in bytes, of which the kernel makes the double; what comes is memory of this process too, over
// TCP. A send buffer of zero is the system's. With a limit, the kernel ends a connection whose
// peer takes nothing for so long, also after it was closed.
func ListenTCP(address string, send, receive int, limit time.Duration) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return boundTCP(raw, send, receive, limit)
	}}
	return lc.Listen(context.Background(), "tcp", address)
}

// BoundReceive sets the receive buffer of the connections that come from now on, as ListenTCP does.
func BoundReceive(ln *net.TCPListener, receive int) error {
	raw, err := ln.SyscallConn()
	if err != nil {
		return err
	}
	return boundTCP(raw, 0, receive, 0)
}

func boundTCP(raw syscall.RawConn, send, receive int, limit time.Duration) (err error) {
	e := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receive)
		if err == nil && send > 0 {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, send)
		}
		if err == nil && limit > 0 {
			err = limitUnsent(int(fd), limit)
		}
	})
	return errors.Join(err, e)
}
