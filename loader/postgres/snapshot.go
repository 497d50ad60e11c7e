package postgres

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Snapshot says which transactions a statement sees, as pg_current_snapshot does.
type Snapshot struct {
	Max  uint64   // it sees no transaction from there on: they have not begun, or none of them has ended
	Open []uint64 // those before it that had not ended, in order
	Next uint64   // the first transaction that had not begun, only set by View
}

// parseSnapshot reads xmin:xmax:xip,xip…
func parseSnapshot(text string) (s Snapshot, err error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return s, fmt.Errorf("snapshot %q has an unknown form", text)
	}
	if s.Max, err = strconv.ParseUint(parts[1], 10, 64); err != nil {
		return s, fmt.Errorf("snapshot %q has an unknown form", text)
	}
	if parts[2] == "" {
		return s, nil
	}
	for x := range strings.SplitSeq(parts[2], ",") {
		n, err := strconv.ParseUint(x, 10, 64)
		if err != nil {
			return s, fmt.Errorf("snapshot %q has an unknown form", text)
		}
		s.Open = append(s.Open, n)
	}
	slices.Sort(s.Open)
	return s, nil
}

// Sees reports whether a reader with the snapshot sees a transaction that has committed. The
// stream has the low half of its number; the other half is that which brings it next to Max.
func (snap Snapshot) Sees(xid uint32) bool {
	if xid == 0 {
		return true
	}
	full := snap.Max + uint64(int64(int32(xid-uint32(snap.Max))))
	return snap.done(full)
}

func (snap Snapshot) done(full uint64) bool {
	_, open := slices.BinarySearch(snap.Open, full)
	return full < snap.Max && !open
}

// After reports whether all transactions have ended that were open in an earlier snapshot of View: all that had
// begun by then.
func (snap Snapshot) After(earlier Snapshot) bool {
	return snap.Max >= earlier.Next && (len(snap.Open) == 0 || snap.Open[0] >= earlier.Next)
}

// Covers reports whether a reader with the snapshot sees all that another snapshot counts as done.
func (snap Snapshot) Covers(other Snapshot) bool {
	return snap.Max >= other.Max && !slices.ContainsFunc(snap.Open, other.done)
}
