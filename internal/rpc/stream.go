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

// stream reads and writes a connection. Over a file descriptor it waits for bytes without
// a buffer, and sets a deadline only for a write that would block. Elsewhere it waits
// with a small buffer.
type stream struct {
	nc   net.Conn
	raw  syscall.RawConn // nil if nc is not over a file descriptor
	line *line           // below nc, if nc is TLS over a file descriptor

	// Only for the reader goroutine.
	buf     []byte // from buffers, lent by the account, or put aside; nil while idle
	pooled  *[smallBuffer]byte
	large   []byte // the same as buf, if the account has lent it
	aside   bool   // buf is just as long as its content: see putAside
	r, w    int    // buf[r:w] has been read and not consumed
	onBatch func(n int) error
	rerr    error
	readFn  func(fd uintptr) bool
	number  uint64
	// The batch was answered, so that the peer may send the next one: see looks.
	served bool
	inRow  int // batches since another stream of this process has read
	busy   int // batches since the reader has rested
	turn   turn

	fd writer // of the goroutine that writes; one at a time

	account *Account     // for memory in use while the stream waits; see hold
	use     Use          // of the reader's buffer
	held    atomic.Int64 // bytes charged for the reader's buffer
	onWait  func() error // called before the reader waits with an incomplete frame
	onBlock func() error // called before a write waits
}

var buffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}

func (s *stream) init(nc net.Conn, writeTimeout time.Duration) {
	s.nc, s.number = nc, streams.Add(1)
	switch c := nc.(type) {
	case *Secured:
		if c.line.adopt(writeTimeout, s.blocks) {
			s.line = c.line
		}
	case syscall.Conn:
		if raw, err := c.SyscallConn(); err == nil {
			s.raw = raw
			s.readFn = s.tryRead
		}
	}
	s.fd.init(nc, s.raw, writeTimeout, s.blocks)
}

// blocks is called before a write waits.
func (s *stream) blocks() error { return s.onBlock() }

// acquire makes sure that there is a buffer to read into.
func (s *stream) acquire() {
	if s.buf != nil && !s.aside {
		return
	}
	s.pooled = buffers.Get().(*[smallBuffer]byte)
	s.w = copy(s.pooled[:], s.buf[s.r:s.w])
	s.r, s.buf = 0, s.pooled[:]
	if s.aside {
		s.aside = false
		_ = s.hold(0) // giving back never fails
	}
}

// hold changes the bytes charged for the reader's buffer to n.
func (s *stream) hold(n int64) error {
	was := s.held.Load()
	if n < was {
		s.account.Give(s.use, was-n)
	} else if err := s.account.Take(s.use, n-was); err != nil {
		return err
	}
	s.held.Store(n)
	return nil
}

// fewBytes is how many bytes of a frame are always accepted: the connection itself needs
// more.
const fewBytes = 512

// putAside keeps the beginning of a frame in no more memory than it needs, while the
// reader waits for more.
func (s *stream) putAside() error {
	n := s.w - s.r
	size := n
	if n >= smallBuffer { // the reader goes on to read into it
		size = powerBelow(2 * n)
	}
	if n == 0 || s.aside || s.pooled == nil && len(s.buf) <= 2*size {
		return nil
	}
	if n > fewBytes {
		if err := s.hold(int64(size)); err != nil {
			return err
		}
	}
	if n >= smallBuffer {
		s.grow(size)
		return nil
	}
	b := append([]byte(nil), make([]byte, n)...) // of a size that the allocator has
	s.w = copy(b, s.buf[s.r:s.w])
	s.r, s.buf, s.aside = 0, b, true
	s.unpool()
	is := int64(cap(b))
	s.account.Force(s.use, is-s.held.Swap(is))
	return nil
}

// waits charges the beginning of a frame while the reader waits for more.
func (s *stream) waits() error {
	if s.raw == nil && s.pooled != nil { // the read may wait
		if err := s.hold(smallBuffer); err == nil || s.w-s.r > fewBytes {
			return err
		}
	}
	return s.putAside()
}

func (s *stream) unpool() {
	if s.pooled != nil {
		buffers.Put(s.pooled)
		s.pooled = nil
	}
	if s.large != nil {
		s.account.larges().give(s.large)
		s.large = nil
	}
}

// release gives the buffer back if nothing is left in it.
func (s *stream) release() {
	if s.r < s.w {
		return
	}
	s.r, s.w, s.buf, s.aside = 0, 0, nil, false
	s.unpool()
	if s.held.Load() != 0 {
		_ = s.hold(0) // giving back never fails
	}
}

// readEach reads whenever there are bytes and calls batch with their number, until either
// fails. batch leaves room in the buffer.
//
// Over a file descriptor all of that happens inside one call of the raw read, so that the
// stream itself decides when to wait: see looks.
func (s *stream) readEach(batch func(n int) error) error {
	if s.line != nil {
		return s.readSecured(batch)
	}
	if s.raw == nil {
		first := make([]byte, firstRead)
		for {
			if s.r < s.w {
				if err := s.onWait(); err != nil {
					return err
				}
			}
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

// firstRead is the buffer of an idle connection that learns of new bytes only from a
// read. It has room for most frames of a call.
const firstRead = 512

// readSome reads more bytes behind those of the last read, or the first bytes of a batch.
func (s *stream) readSome(first []byte) (n int, err error) {
	if s.buf != nil && !s.aside {
		n, err = s.nc.Read(s.buf[s.w:])
	} else if n, err = s.nc.Read(first[:min(len(first), smallBuffer-s.w+s.r)]); n > 0 {
		s.acquire()
		copy(s.buf[s.w:], first[:n])
	}
	s.w += n
	return n, err
}

// looks is how often a reader that has answered a small batch yields to other goroutines
// and looks for the next batch before it waits for the poller. Among several peers that
// send one request at a time, its own peer has sent the next request by then, and both
// sides are spared a wake-up. A look that finds nothing costs half a microsecond. A peer
// that pipelines has more on its way, and looks would favour it over others, so there is
// none after a large batch. If no other stream is served, there is no goroutine to yield
// to: the runtime would wake a second thread to look for work, on the processor that the
// peer wants.
const (
	looks      = 4
	lookBelow  = 1 << 10 // bytes of a batch
	aloneAfter = 8       // batches in a row
)

// lastReader is the number of the stream of this process that has read last.
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

// tryRead reads and serves until there is nothing left to read.
func (s *stream) tryRead(fd uintptr) bool {
	left := 0 // looks
	s.busy = 0
	s.turn.rest()
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
			if s.release(); s.r == s.w {
				return false
			}
			s.rerr = s.onWait()
			return s.rerr != nil
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
			s.turn.rest()
			runtime.Gosched()
		}
	}
}

// grow replaces the buffer by one of n bytes, a size of roomFor, until it is empty.
func (s *stream) grow(n int) {
	big := s.account.larges().take(n)
	s.w = copy(big, s.buf[s.r:s.w])
	s.r = 0
	s.unpool()
	s.large, s.buf = big, big
}

// compact moves the unconsumed bytes to the front of the buffer.
func (s *stream) compact() {
	if s.r > 0 {
		s.w = copy(s.buf, s.buf[s.r:s.w])
		s.r = 0
	}
}

// write writes all of b. It fails if the peer takes nothing for the timeout.
func (s *stream) write(b []byte) error {
	if s.line != nil {
		return s.line.write(s.nc, b)
	}
	return s.fd.write(b)
}

// writeNow writes as much of b as is possible without waiting. If the connection is not
// over a file descriptor, it writes nothing. Over TLS some of the n bytes may still wait:
// see behind.
func (s *stream) writeNow(b []byte) (n int, err error) {
	if s.line != nil {
		return s.line.writeNow(s.nc, b)
	}
	return s.fd.writeNow(b)
}

// behind says whether bytes that writeNow has taken wait for the next write. That write
// may be empty.
func (s *stream) behind() bool { return s.line != nil && s.line.behind() }

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
