package client

import (
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// hits has the reads that this process has answered itself: the sidecar cannot count them. It calls report some time
// after the first read that is not reported. What is lost with a report is not reported again.
type hits struct {
	report  func()
	due     atomic.Bool   // report will be called
	sending chan struct{} // is full while a report is made

	mu     sync.RWMutex // guards byName
	byName map[string]*tally
}

const (
	maxTallies  = 256 // namespaces; the reads of others are not reported
	reportAfter = 250 * time.Millisecond
	sampleOf    = 16               // reads: the key of one of them is reported
	sampleKeys  = wire.MaxKeys / 4 // keys of one report, at most
	sampleBytes = 32 << 10         // likewise, but for the last key
)

func newHits(report func()) *hits {
	return &hits{report: report, sending: make(chan struct{}, 1), byName: map[string]*tally{}}
}

// tallyOf returns the tally of a namespace.
func (h *hits) tallyOf(name string) *tally {
	h.mu.RLock()
	t := h.byName[name]
	h.mu.RUnlock()
	if t != nil {
		return t
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if t = h.byName[name]; t == nil {
		t = &tally{hits: h, name: name, phase: rand.Uint64()}
		if len(h.byName) < maxTallies {
			h.byName[name] = t
		}
	}
	return t
}

func (h *hits) tallies() []*tally {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return slices.Collect(maps.Values(h.byName))
}

// sum returns how many reads were answered in one of these ways.
func (h *hits) sum(ways ...answered) (n int64) {
	for _, t := range h.tallies() {
		for _, a := range ways {
			n += t.total(a)
		}
	}
	return n
}

// answered says where a read was answered.
type answered uint8

const (
	inShared answered = iota
	isAbsent          // in the shared memory: the origin has no such key
	inNear
	answers
)

// tally has the reads of a namespace.
type tally struct {
	hits    *hits
	name    string
	phase   uint64 // else all processes would sample the same of their reads
	stripes [16]stripe

	mu       sync.Mutex
	reported [answers]int64 // of the totals
	sample   [][]byte
	bytes    int // of sample
}

// stripe has a line of the processor's cache for itself.
type stripe struct {
	counts [answers]atomic.Int64
	_      [64 - 8*answers]byte
}

// ownStripe returns the stripe of this goroutine, by the address of its stack: goroutines on
// different processors mostly have different ones.
func (t *tally) ownStripe() *stripe {
	var here byte
	return &t.stripes[uintptr(unsafe.Pointer(&here))>>13%uintptr(len(t.stripes))]
}

// add counts a read, and samples one of each sampleOf reads.
func (t *tally) add(a answered, key string) {
	n := uint64(t.ownStripe().counts[a].Add(1)) + t.phase
	if !t.hits.due.Load() {
		t.hits.arm()
	}
	// Reads of the same n/sampleOf are a group. The upper four bits of the product are the place of its sample,
	// 0 to 15, as if drawn. With the same place in each group, an app that reads sixteen keys in turn would
	// have the same key sampled each time.
	const golden = 0x9E3779B97F4A7C15 // 2⁶⁴ by the golden ratio
	if n%sampleOf == n/sampleOf*golden>>60 {
		t.noteKey(key)
	}
}

func (h *hits) arm() {
	if !h.due.Swap(true) {
		time.AfterFunc(reportAfter, h.report)
	}
}

// noteKey adds a key to the sample, unless that is full, or in use.
func (t *tally) noteKey(key string) {
	if !t.mu.TryLock() {
		return
	}
	defer t.mu.Unlock()
	if len(t.sample) < sampleKeys && t.bytes < sampleBytes {
		t.sample = append(t.sample, []byte(key))
		t.bytes += len(key)
	}
}

// total returns how many reads were answered so.
func (t *tally) total(a answered) (n int64) {
	for i := range t.stripes {
		n += t.stripes[i].counts[a].Load()
	}
	return n
}

// takeReport returns a report of what was not reported yet; nil: there is nothing.
func (t *tally) takeReport() *wire.Request {
	t.mu.Lock()
	defer t.mu.Unlock()
	var n [answers]uint32
	for a := range answers {
		n[a] = uint32(min(t.total(a)-t.reported[a], wire.MaxHits))
		t.reported[a] += int64(n[a])
	}
	if n == [answers]uint32{} {
		return nil
	}
	q := &wire.Request{
		Op: wire.OpHits, Namespace: []byte(t.name), Keys: t.sample,
		Hits: wire.Hits{Shared: n[inShared], Absent: n[isAbsent], Near: n[inNear]},
	}
	t.sample, t.bytes = nil, 0
	return q
}
