package redisorigin

import (
	"errors"
	"net"
	"strconv"

	"github.com/cachesidecar/cachesidecar/loader"
)

// limitedConn follows the replies on a connection. It refuses replies whose announced
// lengths together exceed what one request may return. The client library allocates
// whatever length is announced, before any of it has arrived, and a wrong length can
// exceed the memory of the machine.
type limitedConn struct {
	net.Conn
	most     int // bytes of all strings in the replies to one request
	bytes    int // remaining bytes of strings
	lines    int // remaining bytes of lines; starts at maxLines
	elements int // remaining elements; starts at maxElements
	arrays   int // remaining arrays: what is no list of keys has none
	due      int // replies that were requested, and their elements, less what has come
	scanner  loader.Scanner
	large    bool // a string was longer than the limit
	reserved loader.Reservation
	busy     error // there is no memory for a string
}

const (
	maxElements = 1 << 16  // of all arrays, sets and maps in the replies to one request
	scanArrays  = 2        // in the reply to SCAN
	pageBytes   = 16 << 20 // bytes of a page of keys
	maxLine     = 64 << 10 // bytes
	maxLines    = 1 << 20  // bytes of all lines in the replies to one request
	keptLine    = 32       // bytes; more than a type and a length need
)

var (
	errTooLong  = errors.New("a reply states or has a length beyond the limit")
	errTooLarge = errors.New("a string is longer than the limit")
)

// errSurplus says that what has come is not what was requested. The replies of the next
// request could not be told from the rest.
var errSurplus = errors.New("the server has sent more than the replies")

func newLimited(c net.Conn, o loader.OriginOptions) *limitedConn {
	limited := &limitedConn{Conn: c, most: o.MaxValue + pageBytes, reserved: loader.Reservation{Memory: o.Memory}}
	limited.scanner = loader.Scanner{Most: maxLine, Keep: keptLine, Line: limited.count}
	return limited
}

// Write begins a request, and resets the counts of its replies.
func (lim *limitedConn) Write(p []byte) (int, error) {
	lim.bytes, lim.lines, lim.elements = lim.most, maxLines, maxElements
	return lim.Conn.Write(p)
}

// settled reports whether all replies that were requested have come, and nothing else.
func (lim *limitedConn) settled() bool { return lim.due == 0 && lim.scanner.Between() }

func (lim *limitedConn) Read(p []byte) (int, error) {
	n, err := lim.Conn.Read(p)
	if !lim.scanner.Pass(p[:n]) {
		if lim.busy != nil {
			return 0, lim.busy
		}
		if lim.large {
			return 0, errTooLarge
		}
		return 0, errTooLong
	}
	return n, err
}

// count counts a line (RESP2 and RESP3). It leaves a line without a length, or with an
// invalid one, to the client library.
func (lim *limitedConn) count(line []byte, length int) (announced int, ok bool) {
	lim.due--
	if lim.lines -= length; lim.lines < 0 {
		return -1, false
	}
	if len(line) == 0 {
		return -1, true
	}
	n, err := strconv.Atoi(string(line[1:]))
	left := &lim.bytes
	switch line[0] {
	case '$', '=', '!': // strings
	case '*', '~', '%', '>', '|': // of elements
		left = &lim.elements
	default:
		return -1, true
	}
	if errors.Is(err, strconv.ErrRange) || length > keptLine || n > *left {
		lim.large = err == nil && left == &lim.bytes
		return -1, false
	}
	if err != nil || n < 0 {
		return -1, true
	}
	if *left -= n; left == &lim.elements {
		if lim.arrays--; lim.arrays < 0 { // each would take memory, and nested ones a stack
			return -1, false
		}
		lim.due += n
		return -1, true
	}
	if lim.busy = lim.reserved.Take(n); lim.busy != nil {
		return -1, false
	}
	return n, true
}
