package keyfilter

import (
	"fmt"
	"math"
	"math/bits"
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// bloom is a Bloom filter of hashes. It reports every added hash, and a stated share of
// the hashes that were not added. It is implemented here because the keys are already
// hashed, and because add and has run concurrently: the bits are set atomically.
type bloom struct {
	words  []atomic.Uint64
	probes int
}

// maxBloomBits is 1 GiB: enough for 800 million keys at 1 %.
const maxBloomBits = 1 << 33

// bloomWords returns how many words of 64 bits a filter of a number of keys needs. falsePositives is the
// share of other keys that may pass, between 0 and 1.
func bloomWords(keys int, falsePositives float64) (int, error) {
	if keys < 1 || !(falsePositives > 0 && falsePositives < 1) {
		return 0, fmt.Errorf("a Bloom filter of %d keys and false positives of %v: "+
			"give at least 1, and a share between 0 and 1", keys, falsePositives)
	}
	// The rate of a full filter varies around the rate that it is sized for, so the
	// filter is sized for a slightly lower rate than stated.
	size := math.Ceil(-float64(keys) * math.Log(0.9*falsePositives) / (math.Ln2 * math.Ln2))
	if size > maxBloomBits {
		return 0, fmt.Errorf("a Bloom filter of %d keys at %v takes %.0f MiB, the most is %d MiB: "+
			"give fewer keys or a greater share", keys, falsePositives, size/8/(1<<20), maxBloomBits/8/(1<<20))
	}
	return (int(size) + 63) / 64, nil
}

// newBloom returns a filter with as many words as bloomWords says.
func newBloom(words int, falsePositives float64) *bloom {
	return &bloom{
		words: make([]atomic.Uint64, words), probes: max(1, int(math.Round(-math.Log2(falsePositives)))),
	}
}

// place returns the bit of one probe. The second hash is derived from the first
// (splitmix64) and is odd. Two hashes are as good as many (Kirsch and Mitzenmacher,
// 2006).
func (b *bloom) place(h kv.Hash, probe int) (word uint64, bit uint64) {
	second := uint64(h) ^ uint64(h)>>30
	second *= 0xbf58476d1ce4e5b9
	second ^= second >> 27
	second *= 0x94d049bb133111eb
	second ^= second >> 31
	at, _ := bits.Mul64(uint64(h)*0x9e3779b97f4a7c15+uint64(probe)*(second|1), uint64(len(b.words))*64)
	return at / 64, 1 << (at % 64)
}

// add adds a hash and reports whether that set a bit. It may be called concurrently.
func (b *bloom) add(h kv.Hash) (changed bool) {
	for i := range b.probes {
		word, bit := b.place(h, i)
		changed = b.words[word].Or(bit)&bit == 0 || changed
	}
	return changed
}

// has reports whether a hash may have been added. It may be called concurrently.
func (b *bloom) has(h kv.Hash) bool {
	for i := range b.probes {
		if word, bit := b.place(h, i); b.words[word].Load()&bit == 0 {
			return false
		}
	}
	return true
}
