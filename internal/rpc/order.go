package rpc

import "bytes"

// Place is the place of an answer among those of a connection in order (Limits.InOrder).
// Conn.Begin gives it. On other connections it is zero.
type Place uint64

// order is the answers of a connection in order that may not be written yet: those of
// requests that wait, and those behind them. It is empty while no request waits. The
// outbox's lock guards it.
//
// Its memory is charged as answers are, except for the first freeInLine bytes.
type order struct {
	spots  []spot // from first on
	first  int
	passed Place // the last place that has left the line
	short  int64 // bytes of the spots without a charge of their own
}

// spot is a place in the line. Before it is done it has no bytes but those of More.
type spot struct {
	chunk
	done bool
}

// freeInLine is how many bytes of short answers in a line are free of charge. So a request
// beside a few others needs no memory of the budget for its answer.
const freeInLine = 4 << 10

func (l *order) empty() bool { return l.first == len(l.spots) }

// enter appends a spot.
func (l *order) enter(s spot) Place {
	if len(l.spots) == cap(l.spots) && l.first > len(l.spots)/2 {
		n := copy(l.spots, l.spots[l.first:])
		clear(l.spots[n:])
		l.spots, l.first = l.spots[:n], 0
	}
	l.spots = append(l.spots, s)
	return l.passed + Place(len(l.spots)-l.first)
}

// at returns the spot of a place.
func (l *order) at(p Place) *spot { return &l.spots[l.first+int(p-l.passed)-1] }

// leave removes the first spot, if it is done.
func (l *order) leave() (s spot, ok bool) {
	if l.empty() || !l.spots[l.first].done {
		return spot{}, false
	}
	s = l.spots[l.first]
	l.spots[l.first] = spot{}
	l.passed++
	if l.first++; l.empty() {
		l.first = 0
		if l.spots = l.spots[:0]; cap(l.spots) > MaxServe {
			l.spots = nil
		}
	}
	return s, true
}

// holdLocked changes the bytes of short answers in the line by n.
func (r *replies) holdLocked(n int64) error {
	l, share := &r.order, &r.outbox.share
	was, is := max(l.short-freeInLine, 0), max(l.short+n-freeInLine, 0)
	if is > was {
		if err := share.take(is-was, forShort); err != nil {
			return err
		}
	} else if is < was {
		share.give(was - is)
	}
	l.short += n
	return nil
}

// putLocked ends the request of a place with the answer b, which may be empty. Answers that
// are first now go into the outbox. The arguments are as in pushLocked.
func (r *replies) putLocked(p Place, b []byte, given, reads bool) {
	if p == 0 {
		r.pushLocked(b, given, reads)
		return
	}
	s := r.order.at(p)
	s.done = true
	if p == r.order.passed+1 {
		r.pushLocked(b, given, reads)
	} else {
		r.keepLocked(s, b, given, reads)
	}
	r.releaseLocked()
}

// keepLocked keeps an answer in its place. If there is no memory, it does what pushLocked
// does.
func (r *replies) keepLocked(s *spot, b []byte, given, reads bool) {
	o := r.outbox
	if o.err != nil || len(b) == 0 {
		return
	}
	r.expectLocked(b, reads)
	err := r.storeLocked(s, b, given)
	if err != nil && reads && len(b) > sayBusy {
		if busy, ok := r.server.framing.Instead(nil, b, err); ok {
			err = r.storeLocked(s, busy, true)
		}
	}
	if err != nil {
		o.failLocked(err)
	}
}

// storeLocked charges an answer and puts it into a spot.
func (r *replies) storeLocked(s *spot, b []byte, given bool) error {
	if !given || cap(b) > 2*len(b) {
		b = bytes.Clone(b)
	}
	n := int64(cap(b))
	if len(b) <= shortAnswer {
		if err := r.holdLocked(n); err != nil {
			return err
		}
	} else {
		if err := r.outbox.share.take(n, 0); err != nil {
			return err
		}
		s.charged, s.long = n, true
	}
	s.b = b
	r.outbox.lined += len(b)
	return nil
}

// lineUpLocked puts what the reader has into the line, behind all requests that wait. The
// bytes belong to the reader again, except if they are charged.
func (r *replies) lineUpLocked(batch chunk) {
	o := r.outbox
	switch {
	case o.err != nil:
		o.free(batch)
	case batch.charged > 0: // its bytes are not shared
		r.order.enter(spot{batch, true})
		o.lined += len(batch.b)
	case len(batch.b) == 0:
	case r.joinLocked(batch.b):
	default:
		s := spot{done: true}
		if err := r.storeLocked(&s, batch.b, false); err != nil {
			o.failLocked(err)
			return
		}
		r.order.enter(s)
	}
}

// joinLocked appends short bytes to those of the last spot, if it is done.
func (r *replies) joinLocked(b []byte) bool {
	l := &r.order
	if l.empty() {
		return false
	}
	s := &l.spots[len(l.spots)-1]
	if !s.done || s.charged > 0 || len(s.b)+len(b) > shortAnswer {
		return false
	}
	// Before append: it would make up to twice as much.
	grown := max(0, len(s.b)+len(b)-cap(s.b))
	if grown > 0 {
		grown = max(grown, min(cap(s.b), shortAnswer-cap(s.b)))
		if r.holdLocked(int64(grown)) != nil {
			return false
		}
		s.b = append(make([]byte, 0, cap(s.b)+grown), s.b...)
	}
	s.b = append(s.b, b...)
	r.outbox.lined += len(b)
	return true
}

// releaseLocked moves the answers that are first into the outbox. The caller writes them.
func (r *replies) releaseLocked() {
	for {
		s, ok := r.order.leave()
		if !ok {
			return
		}
		r.moveLocked(s.chunk)
	}
}

// moveLocked moves the bytes of a spot into the outbox.
func (r *replies) moveLocked(ch chunk) {
	o := r.outbox
	o.lined -= len(ch.b)
	switch {
	case ch.charged > 0 && o.err == nil:
		o.queue.push(ch)
	case ch.charged > 0:
		o.free(ch)
	case len(ch.b) > 0:
		_ = r.holdLocked(-int64(cap(ch.b))) // giving back never fails
		r.pushLocked(ch.b, false, false)
	}
}

// more writes a part of an answer: see More.
func (r *replies) more(p Place, b []byte) (taken, stands bool) {
	o := r.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	if taken = p == r.order.passed+1; taken { // else it would need memory that the first one waits for
		r.keepLocked(r.order.at(p), b, true, true)
	}
	for o.err == nil && p != r.order.passed+1 {
		o.changed.Wait()
	}
	if o.err == nil {
		s := r.order.at(p)
		r.moveLocked(s.chunk)
		s.chunk = chunk{}
		r.writeLocked(false)
	}
	for o.err == nil && o.writing {
		o.changed.Wait()
	}
	return taken, o.err == nil
}

// dropLocked drops the answers in the line: the connection has ended. The places stay, until
// their requests end.
func (r *replies) dropLocked() {
	for i := range r.order.spots {
		s := &r.order.spots[i]
		r.outbox.lined -= len(s.b)
		if s.charged > 0 {
			r.outbox.free(s.chunk)
		} else if s.b != nil {
			_ = r.holdLocked(-int64(cap(s.b))) // giving back never fails
		}
		s.chunk = chunk{}
	}
}

// sendOrdered writes the answers of a batch behind those of the requests that wait, or leaves
// them to whoever ends these. The bytes belong to the reader again, except if they are
// charged.
func (r *replies) sendOrdered(batch chunk) error {
	o := r.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waitNotFullLocked()
	if r.order.empty() {
		if len(batch.b) > 0 {
			o.sendBatchLocked(batch)
		}
	} else {
		r.lineUpLocked(batch)
		r.releaseLocked()
		r.writeLocked(true)
	}
	o.unpinLocked()
	return o.err
}
