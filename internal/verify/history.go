package verify

import (
	"fmt"
	"sync"
	"time"
)

// history is what VERIFY has written. Every read is judged by it. The writes of a key
// follow one another, each with the next number as its value.
type history struct {
	bound time.Duration
	keys  []*historyKey // does not change during a check

	mu           sync.Mutex
	begun, acked int64
	violations   []string // the first maxViolations
	broken       int64    // the number of all violations
}

// historyKey is the history of one key.
type historyKey struct {
	name  []byte
	acks  []time.Duration // by number less one: when the write was acknowledged; zero is unknown
	known int             // the highest number that was acknowledged
	fresh int             // the highest number that a fresh read has returned
}

// maxViolations bounds the violations that are reported; the others are only counted.
const maxViolations = 20

// historyRead is a read that has begun.
type historyRead struct {
	key        *historyKey
	node       string
	sent       time.Duration
	own, fresh bool
	known      int // the key's known when the read began
	seen       int // the key's fresh when the read began
}

// writes begins a write of a key and returns its number.
func (h *history) writes(k *historyKey) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.begun++
	k.acks = append(k.acks, 0)
	return len(k.acks)
}

func (h *history) acknowledged(k *historyKey, n int, at time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acked++
	k.acks[n-1], k.known = at, n
}

// reads begins a read.
func (h *history) reads(k *historyKey, node string, sent time.Duration, own, fresh bool) historyRead {
	h.mu.Lock()
	defer h.mu.Unlock()
	return historyRead{key: k, node: node, sent: sent, own: own, fresh: fresh, known: k.known, seen: k.fresh}
}

// judgeLocked judges the number that a read has returned. It returns for how long, at
// least, the value had been overwritten when the read began. The caller holds h.mu.
func (h *history) judgeLocked(r historyRead, got int) (stale time.Duration) {
	k := r.key
	if got < 1 || got > len(k.acks) {
		h.violate("%s read %d as a value of %s, which this host has not written", r.node, got, k.name)
		return 0
	}
	if r.fresh {
		k.fresh = max(k.fresh, got)
	}
	if k.acks[got-1] == 0 && got < len(k.acks) {
		return 0 // the outcome is unknown: the write may have taken effect late
	}
	for _, at := range k.acks[got:] {
		if at != 0 {
			stale = max(0, r.sent-at)
			break
		}
	}
	switch {
	case got >= r.known && got >= r.seen:
	case r.fresh && got < r.seen:
		h.violate("fresh: %s read write %d of %s after a fresh read had returned %d", r.node, got, k.name, r.seen)
	case r.fresh:
		h.violate("fresh: %s read write %d of %s, %v after the next was acknowledged", r.node, got, k.name, stale)
	case r.own && got < r.known:
		h.violate("read your writes: %s read write %d of %s, %v after its own next write was acknowledged",
			r.node, got, k.name, stale)
	}
	if stale > h.bound {
		h.violate("the bound: %s read write %d of %s, %v after the next was acknowledged", r.node, got, k.name, stale)
	}
	return stale
}

func (h *history) violate(format string, args ...any) {
	h.broken++
	if len(h.violations) < maxViolations {
		h.violations = append(h.violations, fmt.Sprintf(format, args...))
	}
}

// staleUpTo has the upper ends of the distribution's buckets. Zero is for reads that were
// not stale at all; the last bucket also has everything beyond its end.
var staleUpTo = [...]time.Duration{
	0, time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond,
	10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, time.Minute,
}

// staleness is a distribution of how stale reads were.
type staleness struct {
	counts [len(staleUpTo)]int64
	max    time.Duration
}

func (s *staleness) add(d time.Duration) {
	s.max = max(s.max, d)
	for i, end := range staleUpTo {
		if d <= end || i == len(staleUpTo)-1 {
			s.counts[i]++
			return
		}
	}
}

func (s *staleness) merge(o *staleness) {
	for i, n := range o.counts {
		s.counts[i] += n
	}
	s.max = max(s.max, o.max)
}
