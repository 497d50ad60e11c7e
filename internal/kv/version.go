package kv

import (
	"fmt"
	"sync/atomic"
	"time"
)

// Version is a reading of a 64-bit hybrid logical clock (Kulkarni et al., "Logical
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

// FirstVersionAt returns the lowest version that a clock reading wallMillis can stamp.
func FirstVersionAt(wallMillis int64) Version {
	return Version(wallMillis) << (tagBits + logicalBits)
}

// HLC is the hybrid logical clock of a process. Its versions strictly increase and exceed
// every version that it has observed. It is safe for concurrent use.
type HLC struct {
	tag    uint64
	last   atomic.Uint64 // the last version stamped or observed, without its tag
	clock  Clock         // see Follow; nil: every reading of the wall clock is followed
	origin Moment
}

// Follow limits how far the wall clock can move the versions: from now on only as far as
// the boot clock has advanced, plus half a second. So a wall clock that is set ahead does
// not take the versions with it; versions could not go back when the wall clock does.
// Call Follow before other goroutines use the clock. If the wall clock was behind and is
// set right later, this clock follows the versions that it observes from other hosts.
func (c *HLC) Follow(clock Clock) { c.clock, c.origin = clock, clock.Read() }

const followStep = 500 // milliseconds

// steady returns a reading of the wall clock, in milliseconds, limited as Follow says.
func (c *HLC) steady(wall uint64) uint64 {
	if c.clock == nil {
		return wall
	}
	went := (c.clock.Read().Boot - c.origin.Boot).Milliseconds()
	return min(wall, uint64(max(c.origin.Wall+went, 0))+followStep)
}

// NewHLC returns a clock that marks its versions with the low 10 bits of tag.
func NewHLC(tag uint16) *HLC {
	return &HLC{tag: uint64(tag) & (1<<tagBits - 1)}
}

// lastObserved is the last version that HLC.Observe merges, without its tag. It is three
// days before the end of the range, so that stamps are left whatever other hosts send.
const lastObserved = 1<<(64-tagBits) - 1<<40

// Next stamps a new version. The caller reads the wall clock and passes it as wallMillis;
// once per batch is enough, because the logical part orders the rest. Versions never
// wrap: a wall clock at the end of the range counts as three days before it. From there
// 10¹² stamps are left; after them Next panics.
func (c *HLC) Next(wallMillis int64) Version {
	wall := min(uint64(max(wallMillis, 0)), lastObserved>>logicalBits)
	if wall > c.last.Load()>>logicalBits+followStep {
		wall = c.steady(wall)
	}
	for {
		last := c.last.Load()
		next := max(last+1, wall<<logicalBits)
		if next > 1<<(64-tagBits)-1 {
			panic("kv: the version clock has come to its end: this host's wall clock is past the year 2109")
		}
		if c.last.CompareAndSwap(last, next) {
			return Version(next<<tagBits | c.tag)
		}
	}
}

// Observe makes every later version exceed v and returns true. It merges no version of
// the last three days of the range; for such a v it returns false. The caller checks
// before whether another host's clock can be right: see peer.Identity.Ahead.
func (c *HLC) Observe(v Version) bool {
	seen := uint64(v) >> tagBits
	if seen > lastObserved {
		return false
	}
	for {
		last := c.last.Load()
		if last >= seen || c.last.CompareAndSwap(last, seen) {
			return true
		}
	}
}
