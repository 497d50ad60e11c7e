package rpc

import (
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// stream reads and writes a connection. Over a file descriptor it waits for
// bytes without holding a buffer, elsewhere with a small one, and sets a deadline
// only for a write that would block.
type stream struct {
	nc  net.Conn
	raw syscall.RawConn // nil where nc is not over a file descriptor

	writeTimeout time.Duration

	// Of the reader goroutine, and of it alone.
	buf     []byte // from buffers, or larger; nil while idle
	pooled  *[smallBuffer]byte
	r, w    int // buf[r:w] has been read and not consumed
	onBatch func(n int) error
	rerr    error
	readFn  func(fd uintptr) bool
	number  uint64
	served  bool // the batch was answered, so that the peer may send the next one: see looks
	inRow   int  // batches since another stream of this process has read

	// Of whoever writes; one at a time.
	rest    []byte
	werr    error
	timed   bool // a write deadline is set
	now     bool // do not wait
	writeFn func(fd uintptr) bool
}

var buffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}

func (s *stream) init(nc net.Conn, writeTimeout time.Duration) {
	s.nc, s.writeTimeout, s.number = nc, writeTimeout, streams.Add(1)
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			s.raw = raw
			s.readFn = s.tryRead
			s.writeFn = s.tryWrite
		}
	}
}

// acquire makes sure that there is a buffer to read into.
func (s *stream) acquire() {
	if s.buf == nil {
		s.pooled = buffers.Get().(*[smallBuffer]byte)
		s.buf = s.pooled[:]
	}
}

// release gives the buffer up if nothing is left in it.
func (s *stream) release() {
	if s.r < s.w {
		return
	}
	s.r, s.w, s.buf = 0, 0, nil
	if s.pooled != nil {
		buffers.Put(s.pooled)
		s.pooled = nil
	}
}

// readEach reads whenever there are bytes and calls batch with their number,
// until either fails; batch leaves room in the buffer.
//
// Over a file descriptor all of that happens inside one call of the raw read,
// so that waiting is up to us: see looks.
func (s *stream) readEach(batch func(n int) error) error {
	if s.raw == nil {
		first := make([]byte, firstRead)
		for {
			n, err := s.readSome(first)
			if n > 0 {
				err = batch(n)
			}
			if err != nil {
				return err
			}
		}
	}
	s.onBatch = batch
	s.rerr = nil
	if err := s.raw.Read(s.readFn); err != nil {
		return err
	}
	return s.rerr
}

// firstRead is how much of a batch is read into what an idle connection holds
// where nothing tells that bytes have come but a read: a call's frame, mostly.
const firstRead = 512

// readSome reads what goes on where the last read has ended, or what is new.
func (s *stream) readSome(first []byte) (n int, err error) {
	if s.buf != nil {
		n, err = s.nc.Read(s.buf[s.w:])
	} else if n, err = s.nc.Read(first); n > 0 {
		s.acquire()
		copy(s.buf, first[:n])
	}
	s.w += n
	return n, err
}

// looks is how often a reader that has answered a small batch yields to others
// and looks for the next one before it waits for the poller. Among several
// peers that send one request at a time its own has its next one there by then,
// and both sides are spared a wake-up; a look that finds nothing costs half a
// microsecond. A peer that pipelines has more on its way, and would be favoured
// over others by it. Where nobody else is served there is nobody to yield to:
// the runtime would wake a second thread to look for work, on the processor
// that the peer wants.
const (
	looks      = 4
	lookBelow  = 1 << 10 // bytes of a batch
	aloneAfter = 8       // batches in a row
)

// lastReader is the stream of this process that has read last, by its number.
var (
	lastReader atomic.Uint64
	streams    atomic.Uint64
)

// inCompany says whether other streams have read lately.
func (s *stream) inCompany() bool {
	if lastReader.Load() == s.number {
		s.inRow++
	} else {
		lastReader.Store(s.number)
		s.inRow = 0
	}
	return s.inRow < aloneAfter
}

// tryRead reads and serves until there is nothing left to be read.
func (s *stream) tryRead(fd uintptr) bool {
	left := 0 // looks
	for {
		s.acquire()
		n, err := syscall.Read(int(fd), s.buf[s.w:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN && left > 0:
			left--
			runtime.Gosched()
			continue
		case err == syscall.EAGAIN:
			s.release()
			return false
		case err != nil:
			s.rerr = err
			return true
		case n == 0:
			s.rerr = io.EOF
			return true
		}
		s.w += n
		if s.rerr = s.onBatch(n); s.rerr != nil {
			return true
		}
		if s.served && s.inCompany() && n < lookBelow {
			left = looks - 1
			runtime.Gosched()
		}
	}
}

// grow replaces the buffer by one of n bytes, until it is empty.
func (s *stream) grow(n int) {
	big := make([]byte, n)
	s.w = copy(big, s.buf[s.r:s.w])
	s.r = 0
	if s.pooled != nil {
		buffers.Put(s.pooled)
		s.pooled = nil
	}
	s.buf = big
}

// compact moves what is left to the front of the buffer.
func (s *stream) compact() {
	if s.r > 0 {
		s.w = copy(s.buf, s.buf[s.r:s.w])
		s.r = 0
	}
}

// write writes all of b, or fails after writeTimeout.
func (s *stream) write(b []byte) error {
	if s.raw == nil {
		if err := s.nc.SetWriteDeadline(time.Now().Add(s.writeTimeout)); err != nil {
			return err
		}
		_, err := s.nc.Write(b)
		return err
	}
	s.rest, s.werr = b, nil
	err := s.raw.Write(s.writeFn)
	s.rest = nil
	if s.timed {
		s.timed = false
		if e := s.nc.SetWriteDeadline(time.Time{}); err == nil {
			err = e
		}
	}
	if err == nil {
		err = s.werr
	}
	return err
}

// writeNow writes as much of b as can be written without waiting: nothing,
// where the connection is not over a file descriptor.
func (s *stream) writeNow(b []byte) (n int, err error) {
	if s.raw == nil {
		return 0, nil
	}
	s.rest, s.werr, s.now = b, nil, true
	err = s.raw.Write(s.writeFn)
	n = len(b) - len(s.rest)
	s.rest, s.now = nil, false
	if err == nil {
		err = s.werr
	}
	return n, err
}

func (s *stream) tryWrite(fd uintptr) bool {
	for len(s.rest) > 0 {
		n, err := syscall.Write(int(fd), s.rest)
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			if s.now {
				return true
			}
			if !s.timed {
				s.timed = true
				if s.werr = s.nc.SetWriteDeadline(time.Now().Add(s.writeTimeout)); s.werr != nil {
					return true
				}
			}
			return false
		case err != nil:
			s.werr = err
			return true
		default:
			s.rest = s.rest[n:]
		}
	}
	return true
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
