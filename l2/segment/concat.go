package segment

import "github.com/cachesidecar/cachesidecar/internal/kv"

// Concat is Put for the modes Append and Prepend: it puts a value behind or before the present
// one, whose attributes and deadline stay. If the key is absent and create is set, it stores the
// value as Put does. If w.Compare is not zero, the present value must have that version,
// else Concat returns Exists and the version that it has.
//
// A result that is no chain is made under the lock. Otherwise the present value is copied
// without the lock, and the result is stored if the version is still the same; else Concat
// begins anew. After maxTries it gives up with Contended.
func (s *Store) Concat(k kv.Key, w Write, create bool, now kv.Moment) (kv.Version, Result) {
	sh := s.shard(k.Hash)
	for range maxTries {
		sh.mu.Lock()
		joined, v, r, short := sh.concat(k, &w, create, now)
		sh.mu.Unlock()
		switch {
		case joined.Value != nil:
			v, r = s.Put(k, joined, now)
			if r == Exists || r == Absent {
				continue // another write came in between
			}
			return v, r
		case short == nothingShort:
			return v, r
		case !s.makeRoomFor(short, sh, k.Namespace, entrySize(&k, &joined)+len(w.Value), now):
			sh.countNoRoom()
			return 0, NoRoom
		}
	}
	return 0, Contended
}

// concat puts a value and the present one together, or returns what it lacks, or what must be put
// without the lock. It may give the lock up for a while.
func (sh *shard) concat(
	k kv.Key, w *Write, create bool, now kv.Moment,
) (unlocked Write, v kv.Version, r Result, short shortage) {
	s := sh.store
	switch {
	case s.overdue(w.ExecuteBefore):
		return Write{}, 0, Overdue, nothingShort
	case !s.serves(k.Hash):
		return Write{}, 0, NotOwner, nothingShort
	}
	_, old, h, b, found := sh.find(k)
	switch present := found && sh.present(h, k.Hash.Partition(), now.Boot); {
	case !present && (!create || w.Compare != 0):
		return Write{}, 0, Absent, nothingShort
	case !present:
		first := *w
		first.Mode = Add
		if first.Value == nil {
			first.Value = []byte{}
		}
		return first, 0, Stored, nothingShort
	case w.Compare != 0 && h.version != w.Compare:
		return Write{}, h.version, Exists, nothingShort
	case h.valueLen+len(w.Value) > s.cfg.MaxValue:
		return Write{}, 0, TooLarge, nothingShort
	}
	joined := Write{ExecuteBefore: w.ExecuteBefore, Mode: CompareAndSwap, Compare: h.version, keeps: true}
	joined.Attributes = h.attributes(b)
	result := headerFor(&k, &joined)
	if result.valueLen = h.valueLen + len(w.Value); result.size() > s.cfg.SegmentSize/2 {
		joined.Value = sh.concatValue(old.loc(), h, b, w)
		return joined, 0, Stored, nothingShort
	}
	value := sh.concatValue(old.loc(), h, b, w)
	joined.Value = value
	if s.exceedsWholeQuota(&k, &joined) {
		return Write{}, 0, TooLarge, nothingShort
	}
	v, r, short = sh.put(k, &joined, noSegment, now)
	return Write{}, v, r, short
}

// concatValue returns the present value and the one of w, in their order. While it copies a
// chain, it gives the lock up.
func (sh *shard) concatValue(loc location, h header, b []byte, w *Write) []byte {
	value := make([]byte, 0, h.valueLen+len(w.Value))
	if w.Mode == Prepend {
		value = append(value, w.Value...)
	}
	if h.marks&markChain != 0 {
		value = sh.appendPinned(value, loc, h)
	} else {
		value = append(value, h.value(b)...)
	}
	if w.Mode == Append {
		value = append(value, w.Value...)
	}
	return value
}
