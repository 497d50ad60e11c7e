package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"sync"
	"unsafe"

	"github.com/zeebo/xxh3"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// internal/engine/keep.go decides which kept memory this file may take over; sidecar/keep.go gets it from systemd.
//
// The memory of a store with Config.Keep is a file without a name:
//
//	header │ arena │ index pages, ghosts and quota queues │ meta
//
// Save writes meta behind the rest, and the header as the last. What is in the arena and in the pages has
// offsets only, so another process takes it over as it is. That process clears the header before it serves
// an entry, and if it declines the memory: after a crash, or another process, the memory is of no use.
// Ghosts and quota queues are not taken over.

// Keep puts the memory of a store into a file that outlives the process.
type Keep struct {
	// File is the memory of an earlier process; nil: there is none. The store closes it.
	File *os.File
	// Accept gets the note of the earlier process, as passed to Save. It returns why the entries are
	// of no use, or nil.
	Accept func(note []byte) error
}

// Taken says what a store has taken over.
type Taken struct {
	Entries int64
	Why     error // nothing was taken over; nil with Entries zero: there was no File
}

// keptHeader is the beginning of the file.
type keptHeader struct {
	Magic, Layout     uint64
	Size, Meta        int64  // Config.Size; bytes of meta
	MetaSum, IndexSum uint64 // xxh3 of meta, and of the index pages in use
}

const keptStart = 64 << 10 // where the arena begins: no page of a system is longer

const keptMagic = 0x3165646973686361 // "cahside1"

// keptLayout tells how a store of this program lays out what another process takes over. A change of a
// stored struct changes it. The number stands for all other changes of meaning.
func keptLayout(c *Config) uint64 {
	h := xxh3.New()
	fmt.Fprintln(h, 3, c.SegmentSize, c.Shards, headerSize, pageSize, buckets, tagShift, hitsShift, classes,
		kv.Partitions, kv.MaxNamespaces)
	for _, v := range []any{segment{}, nsCount{}, counters{}, pageID(0), [2][classes]segmentID{}} {
		describe(h, reflect.TypeOf(v))
	}
	return h.Sum64()
}

func describe(w io.Writer, t reflect.Type) {
	fmt.Fprintln(w, t.Size(), t)
	if t.Kind() == reflect.Struct {
		for i := range t.NumField() {
			f := t.Field(i)
			fmt.Fprintln(w, f.Name, f.Offset, f.Type)
			if f.Anonymous {
				describe(w, f.Type)
			}
		}
	}
}

// unusable is the reason why memory cannot be taken over.
type unusable struct{ error }

func unusablef(format string, a ...any) error { return unusable{fmt.Errorf(format, a...)} }

// memory is the file of a store.
type memory struct {
	file  *os.File
	bytes []byte // the file but for meta, mapped
	meta  int64  // bytes of the meta that was taken over, until Own
	taken Taken

	large []bool // for each part that is as long as a large page: the system was asked for one
}

// Memory returns the file that the store is in, without Config.Keep nil.
func (s *Store) Memory() *os.File { return s.memory.file }

// Taken returns what the store has taken over from an earlier process.
func (s *Store) Taken() Taken { return s.memory.taken }

// keptRegions makes the arena and the region of the pages, in a new file or in that of an earlier
// process. header is nil if it is a new one.
func (s *Store) keptRegions(arena, pages int64) (region, meta []byte, header *keptHeader, err error) {
	size := keptStart + arena + pages
	m := &s.memory
	if f := s.cfg.Keep.File; f != nil {
		header, meta, err = readKept(f, &s.cfg, size)
		m.file = f
	} else {
		m.file, err = newMemory(size)
	}
	if err == nil {
		m.bytes, err = mapMemory(m.file, size)
		m.large = make([]bool, size/largePage)
	}
	if err != nil {
		return nil, nil, nil, errors.Join(err, s.freeMemory())
	}
	s.arena = m.bytes[keptStart : keptStart+arena : keptStart+arena]
	return m.bytes[keptStart+arena:], meta, header, nil
}

// readKept reads the header and meta of an earlier process, if this one can use them.
func readKept(f *os.File, c *Config, size int64) (h *keptHeader, meta []byte, err error) {
	if err := lockMemory(f); err != nil {
		return nil, nil, unusable{err}
	}
	defer func() {
		if err != nil {
			Forget(f)
		}
	}()
	h = &keptHeader{}
	if err := binary.Read(io.NewSectionReader(f, 0, pageSize), binary.LittleEndian, h); err != nil {
		return nil, nil, unusablef("its header cannot be read: %w", err)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, nil, unusable{err}
	case h.Magic == 0:
		return nil, nil, unusablef("the process before did not end in order")
	case h.Magic != keptMagic:
		return nil, nil, unusablef("it is no memory of a sidecar")
	case h.Size != c.Size:
		return nil, nil, unusablef("l2_size was %d B, and is %d B", h.Size, c.Size)
	case h.Layout != keptLayout(c):
		return nil, nil, unusablef("this program lays the store out in another way")
	case h.Meta < 4 || info.Size() < size+h.Meta:
		return nil, nil, unusablef("it has %d B, not %d B", info.Size(), size+h.Meta)
	}
	meta = make([]byte, h.Meta)
	if _, err := f.ReadAt(meta, size); err != nil {
		return nil, nil, unusable{err}
	}
	if xxh3.Hash(meta) != h.MetaSum {
		return nil, nil, unusablef("its bytes have changed")
	}
	note := meta[4:]
	n := int(binary.LittleEndian.Uint32(meta))
	if n > len(note) {
		return nil, nil, unusablef("its note is cut off")
	}
	if err := c.Keep.Accept(note[:n:n]); err != nil {
		return nil, nil, unusable{err}
	}
	return h, note[n:], nil
}

// Forget makes memory of no use for any process.
func Forget(f *os.File) { _, _ = f.WriteAt(make([]byte, 8), 0) }

// Own makes the memory that was taken over this process's own. Nothing may change an entry before.
func (s *Store) Own() {
	if s.memory.meta > 0 {
		Forget(s.memory.file)
		punchMemory(s.memory.file, int64(len(s.memory.bytes)), s.memory.meta)
		s.memory.meta = 0
	}
}

// takeOver takes over the entries of an earlier process: they are kept until Adopt.
func (s *Store) takeOver(h *keptHeader, meta []byte) error {
	fits := true
	s.fields(func(b []byte) {
		if fits = fits && len(b) <= len(meta); fits {
			meta = meta[copy(b, meta):]
		}
	})
	if !fits || len(meta) > 0 {
		return unusablef("its tables have another size")
	}
	if s.indexSum() != h.IndexSum {
		return unusablef("its index has changed")
	}
	s.memory.meta = h.Meta
	s.pool.takeOver(s.meta)
	s.pages.takeOver(s.shards)
	for i := range s.generations {
		w := s.generations[i].Load()
		s.generations[i].Store(uint32(uint16(w) + 1))
		if reach := w>>16 + 1; reach < maxReach {
			s.kept[i].Store(reach)
		}
	}
	for _, sh := range s.shards {
		sh.index.publish()
		n := &sh.n
		*n = counters{live: n.live, payload: n.payload, headers: n.headers, used: n.used, negative: n.negative,
			taken: int64(sh.index.count)}
		s.memory.taken.Entries += n.taken
		for id := range sh.counts {
			c := &sh.counts[id]
			c.metered, c.served = false, c.floor // until SetLimits, and HoldBack
			c.evicted, c.over = 0, 0
		}
		sh.weigh()
	}
	return nil
}

// takeOver makes the pool hand out the segments that an earlier process has not used.
func (pl *pool) takeOver(meta []segment) {
	pl.cold = pl.cold[:0]
	for id := range meta {
		if meta[id].state == stateFree {
			pl.cold = append(pl.cold, segmentID(id))
		}
	}
	pl.used = len(meta) - len(pl.cold)
	pl.touched = pl.used
}

// takeOver gives back the pages of an earlier process that no index has.
func (p *pages) takeOver(shards []*shard) {
	for id, is := range p.indexed(shards) {
		if p.pool.pages += pageSize; !is {
			p.put(pageID(id))
		}
	}
}

// indexed tells for each page that was handed out whether an index has it.
func (p *pages) indexed(shards []*shard) []bool {
	used := make([]bool, p.next)
	for _, sh := range shards {
		for _, id := range sh.index.dir {
			used[id] = true
		}
	}
	return used
}

// fields calls each for the memory of every field that outlives the process, in one order.
func (s *Store) fields(each func([]byte)) {
	each(bytesOf(s.generations))
	for id := range s.namespaces {
		each(bytesAt(&s.namespaces[id].seed))
	}
	each(bytesOf(s.meta))
	p := s.pages
	each(bytesAt(&p.next))
	p.next = min(p.next, pageID(len(p.fill)))
	each(bytesOf(p.fill[:p.next]))
	each(bytesOf(p.depth[:p.next]))
	for _, sh := range s.shards {
		x := sh.index
		each(bytesAt(&x.base))
		each(bytesAt(&x.depth))
		if n := int(x.base) << x.depth; n != len(x.dir) && n <= 2*len(p.fill) {
			x.dir = make([]pageID, n)
		}
		each(bytesOf(x.dir))
		each(bytesAt(&x.count))
		for q := range sh.queues {
			each(bytesAt(&sh.queues[q].head))
			each(bytesAt(&sh.queues[q].tail))
			each(bytesAt(&sh.queues[q].segments))
		}
		each(bytesAt(&sh.open))
		each(bytesAt(&sh.opened))
		each(bytesAt(&sh.sparse.head))
		each(bytesAt(&sh.held))
		each(bytesAt(&sh.nextExpiry))
		each(bytesAt(&sh.counts))
		each(bytesAt(&sh.n))
	}
}

// bytesOf returns the memory of a list whose elements have no pointers.
func bytesOf[T any](list []T) []byte {
	var one T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(list))), len(list)*int(unsafe.Sizeof(one)))
}

func bytesAt[T any](at *T) []byte { return bytesOf(unsafe.Slice(at, 1)) }

// sumAtOnce is how many pages a goroutine sums.
const sumAtOnce = 1 << 10

// indexSum returns the checksum of the index pages in use. They are read in the order of memory, which takes
// half the time of the order of the indexes. Its goroutines end with the call.
func (s *Store) indexSum() uint64 {
	used := s.pages.indexed(s.shards)
	sums := make([]uint64, (len(used)+sumAtOnce-1)/sumAtOnce)
	var wg sync.WaitGroup
	for i := range sums {
		wg.Go(func() {
			end := min((i+1)*sumAtOnce, len(used))
			for id := i * sumAtOnce; id < end; id++ {
				first := id
				for id < end && used[id] {
					id++
				}
				if first < id {
					sums[i] = xxh3.HashSeed(s.pages.region[first*pageSize:id*pageSize], sums[i])
				}
			}
		})
	}
	wg.Wait()
	return xxh3.Hash(bytesOf(sums))
}

// Save leaves the entries to the next process, with a note for its Keep.Accept. The caller must have
// stopped every use of the store; Close comes next.
func (s *Store) Save(note []byte) error {
	for id := range s.meta {
		if s.meta[id].pins > 0 {
			return errors.New("an entry is still read")
		}
	}
	for _, id := range s.pool.warm {
		s.pool.discard(s.segmentBytes(id))
	}
	var meta bytes.Buffer
	_ = binary.Write(&meta, binary.LittleEndian, uint32(len(note)))
	meta.Write(note)
	s.fields(func(b []byte) { meta.Write(b) })
	m := &s.memory
	if _, err := m.file.WriteAt(meta.Bytes(), int64(len(m.bytes))); err != nil {
		return err
	}
	h := keptHeader{
		Magic: keptMagic, Layout: keptLayout(&s.cfg), Size: s.cfg.Size, Meta: int64(meta.Len()),
		MetaSum: xxh3.Hash(meta.Bytes()), IndexSum: s.indexSum(),
	}
	var head bytes.Buffer
	_ = binary.Write(&head, binary.LittleEndian, &h)
	copy(m.bytes, head.Bytes())
	return nil
}

// largePage is the length of a large page of most systems, in bytes. Others get none.
const largePage = 2 << 20

// largeAtOnce bounds how many large pages are made in a row.
const largeAtOnce = 8

// useLargePages has the memory that is kept in large pages where all of it is handed out. Of small pages the
// system takes 50 ms to unmap a GiB when the process ends. Large ones stay for the next process.
func (s *Store) useLargePages() {
	m := &s.memory
	if len(m.large) == 0 {
		return
	}
	made := 0
	for i, free := range s.freeParts() {
		if !free && !m.large[i] && made < largeAtOnce {
			m.large[i] = true
			made++
			useLargePage(m.bytes[i*largePage:][:largePage])
		}
	}
}

// freeParts tells for each part of the memory that is as long as a large page whether some of it takes no
// memory, since it is not handed out.
func (s *Store) freeParts() []bool {
	free := make([]bool, len(s.memory.large))
	mark := func(at, n int) {
		for i := at / largePage; i < len(free) && i*largePage < at+n; i++ {
			free[i] = true
		}
	}
	first := keptStart + len(s.arena)
	s.pages.mu.Lock()
	for _, id := range s.pages.free {
		mark(first+int(id)*pageSize, pageSize)
	}
	mark(first+int(s.pages.next)*pageSize, len(s.pages.region))
	s.pages.mu.Unlock()
	s.pool.mu.Lock()
	for _, id := range s.pool.cold {
		mark(keptStart+int(id)*s.cfg.SegmentSize, s.cfg.SegmentSize)
	}
	s.pool.mu.Unlock()
	return free
}

// freeMemory unmaps and closes the file.
func (s *Store) freeMemory() (err error) {
	m := &s.memory
	if m.bytes != nil {
		err = unmapMemory(m.bytes)
	}
	if m.file != nil {
		err = errors.Join(err, m.file.Close())
	}
	m.bytes, m.file = nil, nil
	return err
}
