package gossip

import (
	"io"
	"slices"
)

// window is the part of the input that has come: all of a packet; or of a stream,
// what has been looked at and somewhat more.
type window struct {
	b    []byte
	at   int
	more io.Reader // nil: there is no more
}

func (w *window) rest() []byte { return w.b[w.at:] }

// fill waits until so many bytes have come beyond those that were taken.
func (w *window) fill(n int) error {
	for len(w.b)-w.at < n {
		if w.more == nil {
			return errUnreadable
		}
		if w.at+n > maxStream {
			return errLong
		}
		w.b = slices.Grow(w.b, max(n, 512))
		k, err := w.more.Read(w.b[len(w.b):cap(w.b)])
		w.b = w.b[:len(w.b)+k]
		if k == 0 && err == io.EOF && len(w.b) > 0 {
			err = io.ErrUnexpectedEOF
		}
		if k == 0 && err != nil {
			return err
		}
	}
	return nil
}

func (w *window) peek() (byte, error) {
	if err := w.fill(1); err != nil {
		return 0, err
	}
	return w.b[w.at], nil
}

func (w *window) take(n int) ([]byte, error) {
	if err := w.fill(n); err != nil {
		return nil, err
	}
	w.at += n
	return w.b[w.at-n : w.at], nil
}

// number takes an unsigned number, big-endian.
func (w *window) number(bytes int) (n uint64, err error) {
	b, err := w.take(bytes)
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	return n, err
}

// header has the fields of an exchange's head that matter.
type header struct{ nodes, userState uint64 }

// fields takes a msgpack map of strings, numbers and booleans; all of memberlist's
// messages are such maps. Nothing in it is nested.
func (w *window) fields() (h header, err error) {
	n, err := w.mapLen()
	if err == nil && n > maxFields {
		err = errUnreadable
	}
	for i := uint64(0); i < n && err == nil; i++ {
		var key, value item
		if key, err = w.item(); err == nil && !key.text {
			err = errUnreadable
		}
		if err == nil {
			name := string(key.raw)
			value, err = w.item()
			switch name {
			case "Nodes":
				h.nodes = value.n
			case "UserStateLen":
				h.userState = value.n
			}
		}
	}
	return h, err
}

func (w *window) mapLen() (uint64, error) {
	b, err := w.take(1)
	switch {
	case err != nil:
		return 0, err
	case b[0]>>4 == 8:
		return uint64(b[0] & 15), nil
	case b[0] == 0xde:
		return w.number(2)
	}
	return 0, errUnreadable
}

// item is a value that contains no other values. A number less than zero is a large
// one.
type item struct {
	text bool
	raw  []byte // good until more is taken
	n    uint64
}

func (w *window) item() (it item, err error) {
	b, err := w.take(1)
	if err != nil {
		return it, err
	}
	size := -1 // of the length field, if the value has one
	switch c := b[0]; {
	case c < 0x80:
		it.n = uint64(c)
	case c >= 0xe0:
		it.n = uint64(int64(int8(c)))
	case c == 0xc0, c == 0xc2, c == 0xc3: // nil, false, true
	case c >= 0xa0 && c <= 0xbf:
		it.text, it.n = true, uint64(c&31)
	case c >= 0xcc && c <= 0xcf: // unsigned
		it.n, err = w.number(1 << (c - 0xcc))
	case c >= 0xd0 && c <= 0xd3: // signed
		size := 1 << (c - 0xd0)
		it.n, err = w.number(size)
		it.n = uint64(int64(it.n<<(64-8*size)) >> (64 - 8*size))
	case c >= 0xc4 && c <= 0xc6: // bytes
		size = 1 << (c - 0xc4)
	case c >= 0xd9 && c <= 0xdb:
		size = 1 << (c - 0xd9)
	default:
		return it, errUnreadable
	}
	if size > 0 {
		it.text = true
		it.n, err = w.number(size)
	}
	if it.text && err == nil {
		if it.n > maxString {
			return it, errUnreadable
		}
		it.raw, err = w.take(int(it.n))
	}
	return it, err
}
