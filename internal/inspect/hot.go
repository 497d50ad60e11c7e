package inspect

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// SampleRate is the mean number of reads for each sample.
const SampleRate = 256

// Sampler chooses one of SampleRate reads, at random: reads that come in a fixed order are
// chosen alike, and so are those of short connections. The zero value is ready. It must
// not be used concurrently.
type Sampler struct {
	left uint32 // reads until the next sample, that one included; zero: not drawn yet
}

// Take reports whether a read is to be noted.
func (sampler *Sampler) Take() bool {
	if sampler.left > 1 {
		sampler.left--
		return false
	}
	return sampler.draw()
}

// draw ends a gap and begins another one.
func (sampler *Sampler) draw() bool {
	taken := sampler.left == 1
	if sampler.left = gap(); taken {
		return true
	}
	return sampler.Take()
}

// gap draws the reads up to the next sample, that one included: from the geometric
// distribution, which does not depend on the reads before.
func gap() uint32 { return 1 + uint32(rand.ExpFloat64()*expGap) }

// expGap makes the mean of gap SampleRate: -1 / ln(1 - 1/SampleRate).
const expGap = 255.49967384

// A Sketch covers the time of windowParts, or of one less.
const (
	windowParts = 6
	width       = 10 * time.Second // of a part
	slots       = 512              // keys of a part
)

// Sketch counts the samples of the last minute. It may be used concurrently.
type Sketch struct {
	began time.Duration // on the boot clock
	mu    sync.Mutex
	parts [windowParts]windowPart // a ring
	last  int64                   // the number of the newest part, since the boot
}

// HotKey is a key that was read often.
type HotKey struct {
	Namespace string
	Key       []byte
	Reads     uint64 // an estimate
}

// Top is what was read most.
type Top struct {
	Window time.Duration
	Reads  uint64   // of all keys; an estimate
	Keys   []HotKey // the most read one first
}

// NewSketch returns a sketch that is empty at now, on the boot clock.
func NewSketch(now time.Duration) *Sketch { return &Sketch{began: now} }

// Note notes a sample: one of about SampleRate reads of a key. now is on the boot clock.
func (s *Sketch) Note(namespace string, k kv.Key, now time.Duration) { s.add(namespace, k, 1, now) }

// NoteReads notes so many reads of a key, from which no samples were taken before.
func (s *Sketch) NoteReads(namespace string, k kv.Key, reads uint32, now time.Duration) {
	samples := reads / SampleRate
	if rand.Uint32N(SampleRate) < reads%SampleRate {
		samples++
	}
	if samples > 0 {
		s.add(namespace, k, samples, now)
	}
}

func (s *Sketch) add(namespace string, k kv.Key, samples uint32, now time.Duration) {
	if !s.mu.TryLock() {
		return // a read must not wait; the sample is one of many
	}
	defer s.mu.Unlock()
	s.advance(now)
	s.parts[s.last%windowParts].note(namespace, k, uint64(samples))
}

// advance drops the parts that have left the window.
func (s *Sketch) advance(now time.Duration) {
	at := int64(now / width)
	for n := max(s.last, at-windowParts); n < at; n++ {
		s.parts[(n+1)%windowParts].reset()
	}
	s.last = max(s.last, at)
}

// Top returns the n most read keys of the namespaces that see accepts.
func (s *Sketch) Top(n int, now time.Duration, see func(namespace string) bool) Top {
	type name struct{ namespace, key string }
	sum := map[name]uint64{}
	s.mu.Lock()
	s.advance(now)
	t := Top{Window: min(now-s.began, (windowParts-1)*width+now%width)}
	for i := range s.parts {
		p := &s.parts[i]
		t.Reads += p.samples * SampleRate
		for j := range p.heap {
			if c := &p.heap[j]; see(c.namespace) {
				sum[name{c.namespace, string(c.key)}] += (c.count - c.over) * SampleRate
			}
		}
	}
	s.mu.Unlock()
	for id, reads := range sum {
		t.Keys = append(t.Keys, HotKey{id.namespace, []byte(id.key), reads})
	}
	slices.SortFunc(t.Keys, func(a, b HotKey) int {
		return cmp.Or(cmp.Compare(b.Reads, a.Reads), cmp.Compare(a.Namespace, b.Namespace),
			slices.Compare(a.Key, b.Key))
	})
	t.Keys = t.Keys[:min(n, len(t.Keys))]
	return t
}

// windowPart is the table of one part of the window: a heap with the least count at the top, and
// the place of each key in it.
type windowPart struct {
	samples uint64
	at      map[kv.Hash]int
	heap    []counter
}

// counter counts the samples of a key. Over of them may be those of other keys.
type counter struct {
	hash        kv.Hash
	namespace   string
	key         []byte
	count, over uint64
}

func (p *windowPart) reset() {
	p.samples = 0
	clear(p.at)
	p.heap = p.heap[:0] // the counters keep the memory of their keys
}

func (p *windowPart) note(namespace string, k kv.Key, samples uint64) {
	p.samples += samples
	if i, ok := p.at[k.Hash]; ok {
		p.heap[i].count += samples
		p.down(i)
		return
	}
	if p.at == nil {
		p.at = make(map[kv.Hash]int, slots)
		p.heap = make([]counter, 0, slots)
	}
	i := len(p.heap)
	if i < slots {
		p.heap = p.heap[:i+1]
		p.heap[i].count = 0
	} else {
		i = 0 // the key that was seen least gives its place
		delete(p.at, p.heap[0].hash)
	}
	c := &p.heap[i]
	if cap(c.key) < len(k.Bytes) {
		c.key = make([]byte, 0, len(k.Bytes)) // append would take up to half more
	}
	c.hash, c.namespace, c.key = k.Hash, namespace, append(c.key[:0], k.Bytes...)
	c.over = c.count
	c.count += samples
	p.at[k.Hash] = i
	p.up(i)
	p.down(i)
}

func (p *windowPart) up(i int) {
	for parent := (i - 1) / 2; i > 0 && p.heap[i].count < p.heap[parent].count; i, parent = parent, (parent-1)/2 {
		p.swap(i, parent)
	}
}

func (p *windowPart) down(i int) {
	for {
		least := i
		for _, child := range [...]int{2*i + 1, 2*i + 2} {
			if child < len(p.heap) && p.heap[child].count < p.heap[least].count {
				least = child
			}
		}
		if least == i {
			return
		}
		p.swap(i, least)
		i = least
	}
}

func (p *windowPart) swap(i, j int) {
	p.heap[i], p.heap[j] = p.heap[j], p.heap[i]
	p.at[p.heap[i].hash], p.at[p.heap[j].hash] = i, j
}
