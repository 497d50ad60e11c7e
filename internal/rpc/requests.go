package rpc

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// longRequest is how many bytes of a value make a request a long one; longAmongMany where
// more than manyShort wait: else many that are nearly long would all go before a short one.
const (
	longRequest   = 32 << 10
	longAmongMany = longRequest / 8
	manyShort     = 4 * longRequest
)

// requests are those that wait to be written to another host. The short ones share a
// buffer, and so a write. A long one is written alone, after the short ones that are there
// by then: what is short waits for one long request at most, and of the long ones each
// account that they are sent for has its turn.
type requests struct {
	short  []byte
	last   time.Time // until when a call of those waits
	spare  []byte    // for the next ones
	long   roundRobin[*Account, longOne]
	end    longOne // is written when nothing else waits
	bytes  int64   // of the long ones
	writes int64   // bytes of what is being written
	alone  bool    // which is one request, mostly a long one

	of     map[*Account]int64 // bytes of processes that wait or are being written
	shorts []part             // of them, those of short
	parts  []part             // and those of what is being written
}

// part is a process's part of what is written at once, in bytes.
type part struct {
	process *Account
	n       int64
}

// longOne is a request that is written alone.
type longOne struct {
	id      uint64
	frame   []byte
	until   time.Time // its call waits
	process *Account
}

// valueSize is how many bytes of a request may be many.
func valueSize(q *wire.Request) int {
	n := len(q.Value) + len(q.Body)
	for _, k := range q.Keys {
		n += len(k) + keyHead
	}
	return n
}

// keyHead is what a key among others has before it.
const keyHead = 3

// isLong says whether a request of a valueSize is written alone.
func (r *requests) isLong(n int) bool {
	return n >= longRequest || n >= longAmongMany && len(r.short) > manyShort
}

// empty says whether nothing waits.
func (r *requests) empty() bool { return len(r.short) == 0 && r.long.len() == 0 && r.end.frame == nil }

// len is how many bytes wait.
func (r *requests) len() int { return len(r.short) + int(r.bytes) }

// held is how much memory there is with n more bytes of one request.
func (r *requests) held(n int) int64 {
	if r.isLong(n) {
		return r.writes + r.bytes + int64(cap(r.short)+n)
	}
	return r.writes + r.bytes + int64(max(cap(r.short), len(r.short)+n))
}

// full says whether one process's requests, or those of none, are too many beside others:
// beyond so many bytes only those may wait that have less than a fair part of them.
func (r *requests) full(bytes int, process *Account) bool {
	return r.len() > bytes && r.of[process] > int64(bytes/max(1, len(r.of)))
}

// sentFor is how many bytes are to be sent for an owner, a process, or the process of a
// connection.
func (r *requests) sentFor(a *Account) (n int64) {
	if r == nil {
		return 0
	}
	for process, bytes := range r.of {
		if process != nil && (process == a || process.up == a || process == a.up) {
			n += bytes
		}
	}
	return n
}

// count counts bytes that wait for a process.
func (r *requests) count(process *Account, n int64) {
	if r.of == nil {
		r.of = map[*Account]int64{}
	}
	if r.of[process] += n; r.of[process] == 0 {
		delete(r.of, process)
	}
}

// add puts a request in, for a process's account or nil, whose call waits until then.
func (r *requests) add(q *wire.Request, process *Account, until time.Time) {
	n := valueSize(q)
	if r.isLong(n) {
		frame := wire.AppendRequest(make([]byte, 0, n+len(q.Key)+smallParts), q)
		r.long.push(process, longOne{q.ID, frame, until, process})
		r.bytes += int64(cap(frame))
		r.count(process, int64(cap(frame)))
		return
	}
	if n > 0 {
		r.count(process, int64(n))
		r.shorts = append(r.shorts, part{process, int64(n)})
	}
	r.short = wire.AppendRequest(r.short, q)
	if until.After(r.last) {
		r.last = until
	}
}

// addEnd puts a short request in that is written after all others.
func (r *requests) addEnd(q *wire.Request, until time.Time) {
	r.end = longOne{frame: wire.AppendRequest(nil, q), until: until}
}

// leaveOut takes the long ones out whose calls wait no more, and tells of each.
func (r *requests) leaveOut(now time.Time, left func(id uint64)) {
	r.long.remove(func(one longOne) bool {
		if now.Before(one.until) {
			return false
		}
		n := int64(cap(one.frame))
		r.bytes -= n
		r.count(one.process, -n)
		left(one.id)
		return true
	})
}

// smallParts is more than what a request mostly has beside its key and its value.
const smallParts = 512

// next takes out what is to be written next, and says until when a call of it waits.
func (r *requests) next() (b []byte, last time.Time) {
	long := r.long.len() > 0 && (!r.alone || len(r.short) == 0)
	r.alone = long || len(r.short) == 0
	switch {
	case long:
		one := r.long.pop()
		b, last = one.frame, one.until
		r.bytes -= int64(cap(b))
		r.parts = append(r.parts, part{one.process, int64(cap(b))})
	case r.alone:
		b, last = r.end.frame, r.end.until
		r.end = longOne{}
	default:
		b, last = r.short, r.last
		r.short, r.spare, r.last = r.spare[:0], nil, time.Time{}
		r.parts, r.shorts = r.shorts, r.parts
	}
	r.writes = int64(cap(b))
	return b, last
}

// written takes back what next has given.
func (r *requests) written(b []byte) {
	r.writes = 0
	for _, p := range r.parts {
		r.count(p.process, -p.n)
	}
	clear(r.parts)
	r.parts = r.parts[:0]
	if cap(b) <= 4*smallBuffer && !r.alone {
		r.spare = b
	}
}
