package trace

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/zeebo/xxh3"
)

// Bounds on the input.
const (
	maxBlocks = 1 << 20 // blocks per line of an ARC trace
	maxLine   = 1 << 20 // bytes
)

// readBinary reads cache2k's format.
func readBinary(r io.Reader, yield func(Request) bool) error {
	b := bufio.NewReaderSize(r, 1<<16)
	var word [4]byte
	for n := 1; ; n++ {
		switch read, err := io.ReadFull(b, word[:]); {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, io.ErrUnexpectedEOF) && read > 0:
			return fmt.Errorf("request %d: %d bytes of 4: the file is cut off or of another format: %w", n, read, err)
		case err != nil:
			return fmt.Errorf("request %d: %w", n, err)
		}
		if !yield(Request{Key: uint64(binary.BigEndian.Uint32(word[:]))}) {
			return nil
		}
	}
}

// readARC reads the format of the ARC paper's traces.
func readARC(r io.Reader, yield func(Request) bool) error {
	return lines(r, func(f [][]byte) (bool, error) {
		if len(f) < 2 {
			return false, fmt.Errorf("%d fields: want \"start n …\"", len(f))
		}
		start, err1 := strconv.ParseUint(string(f[0]), 10, 63)
		blocks, err2 := strconv.ParseUint(string(f[1]), 10, 63)
		if err := errors.Join(err1, err2); err != nil {
			return false, fmt.Errorf("want \"start n …\": %w", err)
		}
		if blocks > maxBlocks {
			return false, fmt.Errorf("%d blocks at once: at most %d are read", blocks, maxBlocks)
		}
		for i := range blocks {
			if !yield(Request{Key: start + i}) {
				return false, nil
			}
		}
		return true, nil
	})
}

// readLines reads the formats with one request per line. A key may be any text.
func readLines(r io.Reader, yield func(Request) bool) error {
	return lines(r, func(f [][]byte) (bool, error) {
		var key, size []byte
		switch len(f) {
		case 1:
			key = f[0]
		case 3:
			key, size = f[1], f[2]
		case 7:
			key, size = f[1], f[3]
		default:
			return false, fmt.Errorf("%d fields: want \"key\", or \"time key size\", or the seven of Twitter's traces", len(f))
		}
		q := Request{Key: xxh3.Hash(key)}
		if size != nil {
			n, err := strconv.ParseUint(string(size), 10, 64)
			if err != nil {
				return false, fmt.Errorf("size %q: want a number of bytes; put a # before a line of titles", size)
			}
			if n > math.MaxInt32 {
				return false, fmt.Errorf("size %d: at most %d bytes are read", n, math.MaxInt32)
			}
			q.Size = uint32(n)
		}
		return yield(q), nil
	})
}

// lines calls f with the fields of each non-empty line until f returns false. The fields
// are valid only during the call.
func lines(r io.Reader, f func(fields [][]byte) (bool, error)) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 1<<16), maxLine)
	n := 1
	for ; s.Scan(); n++ {
		fields := bytes.FieldsFunc(s.Bytes(), func(c rune) bool { return c == ' ' || c == '\t' || c == ',' || c == '\r' })
		if len(fields) == 0 || fields[0][0] == '#' {
			continue
		}
		more, err := f(fields)
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if !more {
			return nil
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("line %d: %w", n, err)
	}
	return nil
}
