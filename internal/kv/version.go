package kv

import (
	"fmt"
	"sync/atomic"
	"time"
)

// Version is a 64-bit hybrid logical clock reading (Kulkarni et al., "Logical
// Physical Clocks", 2014). It orders all writes of a key. From the top:
//
//	42 bits  milliseconds since the Unix epoch (until the year 2109)
//	12 bits  logical counter; it carries into the milliseconds
//	10 bits  tag of the process, so that two processes never stamp alike
//
// Zero is older than every stamped version.
type Version uint64

const (
	tagBits     = 10
	logicalBits = 12
)

// Wall returns the physical part of the version.
func (v Version) Wall() time.Time { return time.UnixMilli(int64(v >> (tagBits + logicalBits))) }

// Tag returns the tag of the process that stamped the version.
func (v Version) Tag() uint16 { return uint16(v & (1<<tagBits - 1)) }

func (v Version) String() string {
	return fmt.Sprintf("%d.%d.%d", v>>(tagBits+logicalBits), v>>tagBits&(1<<logicalBits-1), v.Tag())
}

// FirstVersionAt returns the lowest version that a clock reading wallMillis
// can stamp.
func FirstVersionAt(wallMillis int64) Version {
	return Version(wallMillis) << (tagBits + logicalBits)
}

// HLC is a process's hybrid logical clock. Its versions strictly increase and
// exceed every version it has observed. It is safe for concurrent use.
type HLC struct {
	tag  uint64
	last atomic.Uint64 // the last version stamped or observed, less its tag
}

// NewHLC returns a clock that marks its versions with the low 10 bits of tag.
func NewHLC(tag uint16) *HLC {
	return &HLC{tag: uint64(tag) & (1<<tagBits - 1)}
}

// Next stamps a new version; wallMillis is the wall clock, read by the caller
// (once per batch is enough, the logical part orders the rest).
func (c *HLC) Next(wallMillis int64) Version {
	for {
		last := c.last.Load()
		next := max(last+1, uint64(wallMillis)<<logicalBits)
		if c.last.CompareAndSwap(last, next) {
			return Version(next<<tagBits | c.tag)
		}
	}
}

// Observe makes every later version exceed v.
func (c *HLC) Observe(v Version) {
	seen := uint64(v) >> tagBits
	for {
		last := c.last.Load()
		if last >= seen || c.last.CompareAndSwap(last, seen) {
			return
		}
	}
}
