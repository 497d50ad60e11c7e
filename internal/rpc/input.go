package rpc

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// smallBuffer is how much a connection reads at once, and the longest answer that is not
// charged to the budget while its reader serves, in bytes.
const smallBuffer = 64 << 10

var buffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}

// input is what a connection has read and not consumed. Over a file descriptor it waits
// for bytes without a buffer; elsewhere it waits with a small one. Only the reader's
// goroutine uses it, except for charged.
type input struct {
	socket *socket
	buf    []byte // from buffers, lent by the account, or put aside; nil while idle
	pooled *[smallBuffer]byte
	large  []byte // the same as buf, if the account has lent it
	aside  bool   // buf is just as long as its content: see putAside
	r, w   int    // buf[r:w] has been read and not consumed
	skip   int    // bytes yet to come of a frame that is dropped
	// scanned is the bytes from r on that Framing.Cut need not look at again.
	scanned int

	account *quota.Account // for memory in use while the reader waits; see charge
	use     quota.Use      // of the buffer
	charged atomic.Int64   // bytes charged for the buffer

	// once says that a read which does not fill the buffer is the last one before the reader waits:
	// it has emptied the socket. It may have missed the end of the stream, which ended tells.
	once  bool
	ended atomic.Bool

	// What readEach needs.
	onBatch func(n int) error
	onWait  func() error // called before the reader waits with an incomplete frame
	readFn  func(fd uintptr) bool
	rerr    error
	busy    int // batches since the reader has rested
	turn    turn
}

func (in *input) init(s *socket, a *quota.Account, use quota.Use, onWait func() error) {
	in.socket, in.account, in.use, in.onWait = s, a, use, onWait
	if s.raw != nil {
		in.readFn = in.tryRead
	}
}

// len returns how many bytes have been read and not consumed.
func (in *input) len() int { return in.w - in.r }

// acquire makes sure that there is a buffer to read into.
func (in *input) acquire() {
	if in.buf != nil && !in.aside {
		return
	}
	in.pooled = buffers.Get().(*[smallBuffer]byte)
	in.w = copy(in.pooled[:], in.buf[in.r:in.w])
	in.r, in.buf = 0, in.pooled[:]
	if in.aside {
		in.aside = false
		_ = in.charge(0) // giving back never fails
	}
}

// charge changes the bytes charged for the buffer to n.
func (in *input) charge(n int64) error {
	was := in.charged.Load()
	if n < was {
		in.account.Give(in.use, was-n)
	} else if err := in.account.Take(in.use, n-was); err != nil {
		return err
	}
	in.charged.Store(n)
	return nil
}

// fewBytes is how many bytes of a frame are always accepted: the connection itself needs
// more.
const fewBytes = 512

// putAside keeps the beginning of a frame in no more memory than it needs, while the
// reader waits for more.
func (in *input) putAside() error {
	n := in.len()
	size := n
	if n >= smallBuffer { // the reader goes on to read into it
		size = quota.PowerBelow(2 * n)
	}
	if n == 0 || in.aside || in.pooled == nil && len(in.buf) <= 2*size {
		return nil
	}
	if n > fewBytes {
		if err := in.charge(int64(size)); err != nil {
			return err
		}
	}
	if n >= smallBuffer {
		in.grow(size)
		return nil
	}
	b := append([]byte(nil), make([]byte, n)...) // of a size that the allocator has
	in.w = copy(b, in.buf[in.r:in.w])
	in.r, in.buf, in.aside = 0, b, true
	in.unpool()
	is := int64(cap(b))
	in.account.Force(in.use, is-in.charged.Swap(is))
	return nil
}

// beforeWait charges the beginning of a frame while the reader waits for more.
func (in *input) beforeWait() error {
	if in.socket.raw == nil && in.pooled != nil { // the read may wait
		if err := in.charge(smallBuffer); err == nil || in.len() > fewBytes {
			return err
		}
	}
	return in.putAside()
}

func (in *input) unpool() {
	if in.pooled != nil {
		buffers.Put(in.pooled)
		in.pooled = nil
	}
	if in.large != nil {
		in.account.Buffers().Give(in.large)
		in.large = nil
	}
}

// release gives the buffer back if nothing is left in it.
func (in *input) release() {
	if in.r < in.w {
		return
	}
	in.r, in.w, in.scanned, in.buf, in.aside = 0, 0, 0, nil, false
	in.unpool()
	if in.charged.Load() != 0 {
		_ = in.charge(0) // giving back never fails
	}
}

// discard drops what has been read, and gives the buffer back.
func (in *input) discard() {
	in.r, in.w = 0, 0
	in.release()
}

// grow replaces the buffer by one of n bytes, a size of quota.SizeFor, until it is empty.
func (in *input) grow(n int) {
	big := in.account.Buffers().Take(n)
	in.w = copy(big, in.buf[in.r:in.w])
	in.r = 0
	in.unpool()
	in.large, in.buf = big, big
}

// compact moves the unconsumed bytes to the front of the buffer. It says whether they
// fill the buffer.
func (in *input) compact() (full bool) {
	if in.r > 0 {
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
	return in.w > 0 && in.w == len(in.buf)
}

// passSkipped drops bytes that belong to a dropped frame.
func (in *input) passSkipped() {
	n := min(in.skip, in.len())
	in.skip -= n
	in.r += n
}

// cut appends the next whole frames to list, and returns the offset behind them. bad says that
// the first one is bad. f nil is the framing of package wire.
func (in *input) cut(list [][]byte, f Framing, longest int) (frames [][]byte, next int, bad bool) {
	if f != nil {
		return in.cuts(list, f, longest)
	}
	return in.frames(list, longest)
}

// beginning returns what a framing says of the request that has begun.
func (in *input) beginning(f Framing, longest int) Cut {
	return f.Cut(in.buf[in.r:in.w], in.scanned, longest)
}

// frames is cut for the framing of package wire.
func (in *input) frames(list [][]byte, longest int) (frames [][]byte, next int, bad bool) {
	next = in.r
	for len(list) < MaxServe && next-in.r < partBytes && in.w-next >= wire.LengthSize {
		length := wire.FrameLength(in.buf[next:])
		if length == 0 || length > longest {
			return list, next, len(list) == 0 // the frames before it are served first
		}
		begin, end := next+wire.LengthSize, next+wire.LengthSize+length
		if end > in.w {
			break
		}
		list = append(list, in.buf[begin:end:end])
		next = end
	}
	return list, next, false
}

// cuts is cut for another framing.
func (in *input) cuts(list [][]byte, f Framing, longest int) (frames [][]byte, next int, bad bool) {
	next = in.r
	for len(list) < MaxServe && next-in.r < partBytes && next < in.w {
		cut := f.Cut(in.buf[next:in.w], in.scanned, longest)
		if cut.Bad != nil {
			return list, next, len(list) == 0 // the frames before it are served first
		}
		if cut.Frame == nil {
			in.scanned = cut.Scanned
			break
		}
		in.scanned = 0
		list = append(list, slices.Clip(cut.Frame))
		next += cut.Size
		drop := min(cut.Drop, in.w-next)
		next += drop
		in.skip = cut.Drop - drop
	}
	return list, next, false
}

// firstRead is the buffer of an idle connection that learns of new bytes only from a
// read. It has room for most frames of a call.
const firstRead = 512

// readSome reads more bytes behind those of the last read, or the first bytes of a batch.
func (in *input) readSome(first []byte) (n int, err error) {
	if in.buf != nil && !in.aside {
		n, err = in.socket.nc.Read(in.buf[in.w:])
	} else if n, err = in.socket.nc.Read(first[:min(len(first), smallBuffer-in.len())]); n > 0 {
		in.acquire()
		copy(in.buf[in.w:], first[:n])
	}
	in.w += n
	return n, err
}
