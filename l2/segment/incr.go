package segment

import (
	"bytes"
	"math"
	"strconv"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Increment is the input of Incr.
type Increment struct {
	Delta         int64
	Create        bool // if the key is absent, store Initial with Deadline
	Initial       int64
	Deadline      kv.Deadline
	ExecuteBefore time.Duration // as in Write

	// Unsigned says that the value, Delta and Initial are unsigned numbers, whose bits the
	// int64 fields carry. The sum wraps at 2^64. Spaces may follow the digits of the value,
	// as memcached leaves them there.
	Unsigned      bool
	Decrement     bool       // of unsigned numbers: Delta is subtracted, and the result stops at zero
	ResetDeadline bool       // a present value gets the Deadline too
	Compare       kv.Version // of the present value, else nothing is stored; zero: any
}

// maxDigits is the length of the longest number, with its sign.
const maxDigits = 20

// Incr adds Delta to a decimal number and keeps its attributes and deadline. If the key is
// absent and Create is set, it stores Initial. It returns the new value with its version and
// deadline. With Exists it returns the version of the present value.
func (s *Store) Incr(k kv.Key, i Increment, now kv.Moment) (int64, kv.Version, kv.Deadline, Result) {
	sh := s.shard(k.Hash)
	for range maxTries {
		w := Write{Facts: kv.Facts{Deadline: i.Deadline}, ExecuteBefore: i.ExecuteBefore}
		sh.mu.Lock()
		sum, v, r, short := sh.incr(k, &i, &w, now)
		sh.mu.Unlock()
		if short == nothingShort {
			return sum, v, w.Deadline, r
		}
		if !s.makeRoomFor(short, sh, k.Namespace, entrySize(&k, &w), now) {
			break
		}
	}
	sh.countNoRoom()
	return 0, 0, 0, NoRoom
}

// incr completes w, and puts it.
func (sh *shard) incr(k kv.Key, i *Increment, w *Write, now kv.Moment) (int64, kv.Version, Result, shortage) {
	_, _, h, b, found := sh.find(k)
	sum := i.Initial
	switch present := found && sh.present(h, k.Hash.Partition(), now.Boot); {
	case !present && (!i.Create || i.Compare != 0):
		return 0, 0, Absent, nothingShort
	case present:
		if i.Compare != 0 && h.version != i.Compare {
			return 0, h.version, Exists, nothingShort
		}
		if h.valueLen > maxDigits || h.marks&markChain != 0 {
			return 0, h.version, NotNumber, nothingShort
		}
		var r Result
		if sum, r = i.sum(h.value(b)); r != Stored {
			return 0, h.version, r, nothingShort
		}
		w.Mode, w.Compare, w.Attributes = CompareAndSwap, h.version, h.attributes(b)
		if !i.ResetDeadline {
			w.Deadline = h.deadline
		}
	}
	var digits [maxDigits]byte
	if i.Unsigned {
		w.Value = strconv.AppendUint(digits[:0], uint64(sum), 10)
	} else {
		w.Value = strconv.AppendInt(digits[:0], sum, 10)
	}
	if sh.store.isChain(&k, w) || sh.store.exceedsWholeQuota(&k, w) {
		// A key of nearly half a segment: only in tiny stores.
		return 0, 0, TooLarge, nothingShort
	}
	v, r, short := sh.put(k, w, noSegment, now)
	return sum, v, r, short
}

// sum returns what the value old becomes.
func (i *Increment) sum(old []byte) (int64, Result) {
	if !i.Unsigned {
		n, err := strconv.ParseInt(string(old), 10, 64)
		switch {
		case err != nil:
			return 0, NotNumber
		case i.Delta > 0 && n > math.MaxInt64-i.Delta || i.Delta < 0 && n < math.MinInt64-i.Delta:
			return 0, Overflow
		}
		return n + i.Delta, Stored
	}
	n, err := strconv.ParseUint(string(bytes.TrimRight(old, " ")), 10, 64)
	switch delta := uint64(i.Delta); {
	case err != nil:
		return 0, NotNumber
	case i.Decrement && n < delta:
		return 0, Stored
	case i.Decrement:
		return int64(n - delta), Stored
	default:
		return int64(n + delta), Stored
	}
}
