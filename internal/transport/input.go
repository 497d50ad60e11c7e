package transport

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/sched"
)

// BufferSize is how much a connection reads at once, and the longest answer that is not
// charged to the budget while its reader serves, in bytes.
const BufferSize = 64 << 10

// Buffers has arrays of BufferSize for reuse.
var Buffers = sync.Pool{New: func() any { return new([BufferSize]byte) }}

// Input is what a connection has read and not consumed. Over a file descriptor it waits
// for bytes without a buffer; elsewhere it waits with a small one. Only the reader's
// goroutine uses it, except for Charged and ReadToEnd.
type Input struct {
	socket *Socket
	buf    []byte // from Buffers, lent by the account, or put aside and full; nil while idle
	pooled *[BufferSize]byte
	large  []byte // the same as buf, if the account has lent it
	r, w   int    // buf[r:w] has been read and not consumed
	skip   int    // bytes yet to come that are dropped

	account *quota.Account // for memory in use while the reader waits; see Charge
	use     quota.Use      // of the buffer
	charged atomic.Int64   // bytes charged for the buffer

	// Once says that a read which does not fill the buffer is the last one before the reader waits:
	// it has emptied the socket. It may have missed the end of the stream, of which ReadToEnd tells.
	Once  bool
	ended atomic.Bool

	// What ReadEach needs.
	onBatch func(n int) error
	onWait  func() error // called before the reader waits with an incomplete frame
	readFn  func(fd uintptr) bool
	rerr    error
	batches int // since the reader has waited
}

// Init prepares the input of a socket. The memory of its buffers is charged to the account, while the
// reader waits: it calls onWait before that, if something has been read and not consumed. An error
// ends ReadEach.
func (in *Input) Init(s *Socket, a *quota.Account, use quota.Use, onWait func() error) {
	in.socket, in.account, in.use, in.onWait = s, a, use, onWait
	in.readFn = in.tryRead
}

// Len returns how many bytes have been read and not consumed.
func (in *Input) Len() int { return in.w - in.r }

// Bytes returns what has been read and not consumed. It is valid until the next read, Compact, Grow,
// Shrink, Release or Discard.
func (in *Input) Bytes() []byte { return in.buf[in.r:in.w] }

// Consume takes note that the first n bytes are of no use any more.
func (in *Input) Consume(n int) { in.r += n }

// Size returns how many bytes the buffer takes.
func (in *Input) Size() int { return len(in.buf) }

// Charged returns how many bytes are charged for the buffer. Any goroutine may call it.
func (in *Input) Charged() int64 { return in.charged.Load() }

// Batches returns how many batches have come since the reader has waited, with the present one. A
// connection that does not show whether there are bytes may wait for each.
func (in *Input) Batches() int { return in.batches }

// ReadToEnd makes the reader read up to the end of the stream, which has come. Any goroutine may
// call it.
func (in *Input) ReadToEnd() {
	in.ended.Store(true)
	in.socket.WakeReader()
}

// acquire makes sure that there is a buffer to read into.
func (in *Input) acquire() {
	if in.w < len(in.buf) {
		return
	}
	in.pooled = Buffers.Get().(*[BufferSize]byte)
	in.w = copy(in.pooled[:], in.buf[in.r:in.w])
	in.r, in.buf = 0, in.pooled[:]
	if in.charged.Load() != 0 {
		_ = in.Charge(0) // giving back never fails
	}
}

// Charge changes the bytes charged for the buffer to n.
func (in *Input) Charge(n int64) error {
	was := in.charged.Load()
	if n < was {
		in.account.Give(in.use, was-n)
	} else if err := in.account.Take(in.use, n-was); err != nil {
		return err
	}
	in.charged.Store(n)
	return nil
}

// AlwaysAccepted is how many bytes of a frame are always accepted: the connection itself needs
// more.
const AlwaysAccepted = 512

// Shrink keeps the beginning of a frame in no more memory than it needs, while the
// reader waits for more.
func (in *Input) Shrink() error {
	n := in.Len()
	size := n
	if n >= BufferSize { // the reader goes on to read into it
		size = quota.PowerBelow(2 * n)
	}
	if n == 0 || n == len(in.buf) || in.pooled == nil && len(in.buf) <= 2*size {
		return nil
	}
	if n > AlwaysAccepted {
		if err := in.Charge(int64(size)); err != nil {
			return err
		}
	}
	if n >= BufferSize {
		in.Grow(size)
		return nil
	}
	b := bytes.Clone(in.Bytes()) // its capacity is a size that the allocator has
	in.r, in.w, in.buf = 0, n, b
	in.unpool()
	is := int64(cap(b))
	in.account.Force(in.use, is-in.charged.Swap(is))
	return nil
}

// BeforeWait charges the beginning of a frame while the reader waits for more.
func (in *Input) BeforeWait() error {
	if in.socket.raw == nil && in.pooled != nil { // the read may wait
		if err := in.Charge(BufferSize); err == nil || in.Len() > AlwaysAccepted {
			return err
		}
	}
	return in.Shrink()
}

func (in *Input) unpool() {
	if in.pooled != nil {
		Buffers.Put(in.pooled)
		in.pooled = nil
	}
	if in.large != nil {
		in.account.Buffers().Give(in.large)
		in.large = nil
	}
}

// Release gives the buffer back if nothing is left in it.
func (in *Input) Release() {
	if in.r < in.w {
		return
	}
	in.r, in.w, in.buf = 0, 0, nil
	in.unpool()
	if in.charged.Load() != 0 {
		_ = in.Charge(0) // giving back never fails
	}
}

// Discard drops what has been read, and gives the buffer back.
func (in *Input) Discard() {
	in.r, in.w = 0, 0
	in.Release()
}

// Grow replaces the buffer by one of n bytes, a size of quota.SizeFor, until it is empty.
func (in *Input) Grow(n int) {
	big := in.account.Buffers().Take(n)
	in.w = copy(big, in.buf[in.r:in.w])
	in.r = 0
	in.unpool()
	in.large, in.buf = big, big
}

// Compact moves the unconsumed bytes to the front of the buffer. It says whether they
// fill the buffer.
func (in *Input) Compact() (full bool) {
	if in.r > 0 {
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
	return in.w > 0 && in.w == len(in.buf)
}

// Skip drops the n bytes that come behind those that have been read.
func (in *Input) Skip(n int) { in.skip = n }

// Skips says whether there are bytes yet to come that are dropped.
func (in *Input) Skips() bool { return in.skip > 0 }

// PassSkipped drops what has come of the bytes to be dropped. It says whether there were any.
func (in *Input) PassSkipped() bool {
	if in.skip == 0 {
		return false
	}
	n := min(in.skip, in.Len())
	in.skip -= n
	in.r += n
	return true
}

// A reader that has read much of a frame that is not complete yields to other threads, and looks
// for more of it, so many times before it waits. The rest of a long frame is on its way, and a
// reader that waits comes back only behind all others that are ready.
const (
	looks     = 8
	looksFrom = 16 << 10 // bytes that a read has brought
)

// ReadEach reads whenever there are bytes and calls batch with their number, until either
// fails. batch leaves room in the buffer.
//
// Over a file descriptor all of that happens inside one call of the raw read, so that the
// Input itself decides when to wait.
func (in *Input) ReadEach(batch func(n int) error) error {
	if in.socket.raw == nil {
		return in.readBlind(batch)
	}
	in.onBatch = batch
	in.rerr = nil
	if err := in.socket.raw.Read(in.readFn); err != nil {
		return err
	}
	return in.rerr
}

// tryRead reads and serves until there is nothing left to read.
func (in *Input) tryRead(fd uintptr) bool {
	left := 0 // looks
	in.batches = 0
	for {
		in.acquire()
		room := in.buf[in.w:]
		n, err := in.socket.readNow(int(fd), room)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN && left > 0:
			left--
			sched.Yield()
			continue
		case err == syscall.EAGAIN:
			return !in.mayRest()
		case err != nil:
			in.rerr = err
			return true
		case n == 0:
			in.rerr = io.EOF
			return true
		}
		in.w += n
		in.batches++
		if in.rerr = in.onBatch(n); in.rerr != nil {
			return true
		}
		if left = 0; n >= looksFrom && in.r < in.w {
			left = looks
		} else if n < len(room) && in.Once && !in.ended.Load() {
			return !in.mayRest()
		}
	}
}

// mayRest says whether the reader may wait for more, or sets rerr.
func (in *Input) mayRest() bool {
	if in.Release(); in.r < in.w {
		in.rerr = in.onWait()
	}
	return in.rerr == nil
}

// firstRead is the buffer of an idle connection that learns of new bytes only from a
// read. It has room for most frames of a call.
const firstRead = 512

// readSome reads more bytes behind those of the last read, or the first bytes of a batch.
func (in *Input) readSome(first []byte) (n int, err error) {
	if in.w < len(in.buf) {
		n, err = in.socket.Conn.Read(in.buf[in.w:])
	} else if n, err = in.socket.Conn.Read(first[:min(len(first), BufferSize-in.Len())]); n > 0 {
		in.acquire()
		copy(in.buf[in.w:], first[:n])
	}
	in.w += n
	return n, err
}

// readBlind is ReadEach for a connection that does not show whether there are bytes.
func (in *Input) readBlind(batch func(n int) error) error {
	first := make([]byte, firstRead)
	for {
		if in.r < in.w {
			if err := in.onWait(); err != nil {
				return err
			}
		}
		n, err := in.readSome(first)
		if n > 0 {
			in.batches = 1
			err = batch(n)
		}
		if err != nil {
			return err
		}
	}
}
