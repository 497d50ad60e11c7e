package server

import "github.com/cachesidecar/cachesidecar/internal/transport"

// chunk is what one write sends: short messages that share a pooled buffer, or bytes of their own.
type chunk struct {
	b       []byte
	pooled  *[transport.BufferSize]byte
	charged int64 // bytes charged to the account for it
	long    bool  // counts in queue.long
}

// keptChunks is the room for chunks that an empty queue keeps, at most.
const keptChunks = 32

// queue is the chunks that wait to be written, in their order.
type queue struct {
	chunks []chunk // from first on
	first  int
	bytes  int
	long   int // long chunks, waiting or being written
}

func (q *queue) push(ch chunk) {
	q.chunks = append(q.chunks, ch)
	q.bytes += len(ch.b)
	if ch.long {
		q.long++
	}
}

// join appends b to the last chunk, if that has a pooled buffer with room for b.
func (q *queue) join(b []byte) bool {
	if q.empty() {
		return false
	}
	last := &q.chunks[len(q.chunks)-1]
	if last.pooled == nil || len(last.b)+len(b) > transport.BufferSize {
		return false
	}
	last.b = append(last.b, b...)
	q.bytes += len(b)
	return true
}

// waiting returns the chunks that wait.
func (q *queue) waiting() []chunk { return q.chunks[q.first:] }

func (q *queue) empty() bool { return q.first == len(q.chunks) }

// pop removes the first chunk.
func (q *queue) pop() chunk {
	ch := q.chunks[q.first]
	q.chunks[q.first] = chunk{}
	q.bytes -= len(ch.b)
	if q.first++; q.first == len(q.chunks) {
		q.first = 0
		if q.chunks = q.chunks[:0]; cap(q.chunks) > keptChunks {
			q.chunks = nil
		}
	}
	return ch
}
