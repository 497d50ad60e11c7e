package ownership

import "math/bits"

// negLog2 uses integers because float64 results may differ in the last bit between
// architectures, and one bit is enough for two nodes to disagree on an owner.

const (
	logFraction = 40 // bits after the point
	logIndex    = 11 // bits of the mantissa that index the table
)

// logTable has log2(1 + i/2^logIndex), with logFraction bits after the point.
var logTable = func() (t [1<<logIndex + 1]uint64) {
	for i := range t {
		t[i] = log2(1<<62 + uint64(i)<<(62-logIndex))
	}
	return t
}()

// log2 returns log2(m / 2^62) for 2^62 <= m <= 2^63, bit by bit: squaring a number
// doubles its logarithm.
func log2(m uint64) uint64 {
	if m == 1<<63 {
		return 1 << logFraction
	}
	log := uint64(0)
	for range logFraction {
		hi, lo := bits.Mul64(m, m) // m² with 124 bits after the point
		m = hi<<2 | lo>>62         // with 62
		log <<= 1
		if m >= 1<<63 {
			m >>= 1
			log |= 1
		}
	}
	return log
}

// negLog2 returns -log2((x + 1) / 2^64), at least 1, with logFraction bits after the
// point, by linear interpolation in logTable.
func negLog2(x uint64) uint64 {
	if x == 1<<64-1 {
		return 1
	}
	x++
	zeros := bits.LeadingZeros64(x)
	m := x << zeros << 1 // the mantissa without its leading one
	i := m >> (64 - logIndex)
	rest := m << logIndex >> (64 - 32) // 32 bits between two entries
	low, high := logTable[i], logTable[i+1]
	log := low + (high-low)*rest>>32
	return uint64(zeros+1)<<logFraction - log + 1
}
