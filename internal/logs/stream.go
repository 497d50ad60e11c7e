package logs

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
)

// maxWaiting is the size of the buffer for lines that wait for the stream, in bytes.
const maxWaiting = 256 << 10

// stream accepts lines without waiting. The goroutine that calls write writes them.
type stream struct {
	to   io.Writer
	more chan struct{} // has one element while lines wait

	written, lost atomic.Int64 // lines

	mu      sync.Mutex
	waiting []byte // whole lines
}

func newStream(to io.Writer) *stream { return &stream{to: to, more: make(chan struct{}, 1)} }

// Write adds a line to the waiting ones, or counts it as lost. It never blocks. If no line
// waits, it takes one of any length: all that is wrong with a configuration is one.
func (s *stream) Write(line []byte) (int, error) {
	s.mu.Lock()
	full := len(s.waiting) > 0 && len(s.waiting)+len(line) > maxWaiting
	if !full {
		s.waiting = append(s.waiting, line...)
	}
	s.mu.Unlock()
	if full {
		s.lost.Add(countLines(line))
	}
	select {
	case s.more <- struct{}{}:
	default:
	}
	return len(line), nil
}

// write writes the waiting lines. It returns a buffer that the next call may use.
func (s *stream) write(buf []byte) []byte {
	s.mu.Lock()
	buf, s.waiting = s.waiting, buf[:0]
	s.mu.Unlock()
	if len(buf) == 0 {
		return buf
	}
	n, err := s.to.Write(buf)
	n = max(0, min(n, len(buf)))
	s.written.Add(countLines(buf[:n]))
	if err != nil {
		s.lost.Add(countLines(buf[n:]))
	}
	return buf
}

func countLines(b []byte) int64 { return int64(bytes.Count(b, []byte{'\n'})) }
