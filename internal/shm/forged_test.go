package shm

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// stated is a read of a golden region whose outcome is known without a reader: "hit", "miss",
// "gone" or "refused".
type stated struct {
	region, namespace, key string
	now                    time.Duration
	want                   string
}

// margins are reads of the good region just before and at the moments where the margins of
// the clocks end.
func margins() (list []stated) {
	const ns, second = time.Nanosecond, time.Second
	add := func(key string, now time.Duration, want string) {
		list = append(list, stated{"good", "users", key, now, want})
	}
	add("a", start-clockError-ns, "miss")
	add("a", start-clockError, "hit")
	add("a", start+2*second-clockError-ns, "hit") // this host's values have the bound of the header
	add("a", start+2*second-clockError, "miss")
	add("of-another-owner", start-clockError-ns, "miss")
	add("of-another-owner", start-clockError, "hit")
	add("of-another-owner", start+second-clockError-ns, "hit") // others' have the namespace's
	add("of-another-owner", start+second-clockError, "miss")
	add("ends", start+second/2-clockError-ns, "hit")
	add("ends", start+second/2-clockError, "miss")
	for _, name := range []string{"userz", "user", "users2"} { // a name is all of its bytes, and its length
		list = append(list, stated{"good", name, "a", start, "gone"})
	}
	// Soon after the machine has started, zero is not long ago.
	return append(list, stated{"uncertified", "users", "a", second, "miss"})
}

// headers are changes of the header after which the file is no region. Some are right again
// if the bytes that they claim are counted in 64 bits.
var headers = map[string]func(m memory) memory{
	"header-size":         func(m memory) memory { m.word(atSize).Store(2 * MinSize); return m },
	"header-no-buckets":   func(m memory) memory { m.word(atBuckets).Store(0); return m },
	"header-odd-buckets":  func(m memory) memory { m.word(atBuckets).Store(3); return m },
	"header-many-buckets": func(m memory) memory { m.word(atBuckets).Store(1 << 58); return m },
	"header-more-buckets": func(m memory) memory { m.word(atBuckets).Store(1 << 15); return m },
	"header-few-lines":    func(m memory) memory { m.word(atLines).Store(4*chunk - 1); return m },
	"header-many-lines":   func(m memory) memory { m.word(atLines).Store(1<<58 + 4*chunk); return m },
	"header-more-lines":   func(m memory) memory { m.word(atLines).Store(1 << 14); return m },
	"header-short": func(m memory) memory { // a right region, but for its size
		const less = 4096
		m.word(atLines).Add(^uint64(less/lineSize - 1))
		m.word(atSize).Store(MinSize - less)
		return m[:MinSize-less]
	},
}

// forger makes a region whose entries are wrong in one way each, and have the checksum that
// they must have as they stand: a reader that lacks one guard serves one of them.
type forger struct {
	t   *testing.T
	w   *Writer
	r   *Region
	mem memory
	shape
	reads []stated
}

// publish publishes a value and returns the places of its entry and of its word in the index.
func (f *forger) publish(ns kv.NamespaceID, seed uint64, key string, owner uint8) (at, slot int) {
	k := kv.Key{Hash: kv.HashKey(seed, []byte(key)), Namespace: ns, Bytes: []byte(key)}
	e := &Entry{
		Key: k, Value: []byte("forged"), Facts: kv.Facts{Version: kv.Version(len(f.reads))}, Owner: owner, Taken: f.w.Take(ns, k.Hash),
	}
	if !f.w.Publish(f.r, e, yes) {
		f.t.Fatal(key)
	}
	slot = f.atSlot(f.bucket(k.Hash), 0)
	if f.mem.word(slot).Load() != slotFor(k.Hash, e.position) {
		f.t.Fatalf("%s is not the first of its bucket: choose another key", key)
	}
	return f.atLine(e.position), slot
}

// sign gives an entry the checksum of its head, a key, and a value.
func (f *forger) sign(at int, key string, value []byte) {
	var head [headSize]byte
	copy(head[:], f.mem[at:])
	order.PutUint64(f.mem[at+enSum:], sumOf(&head, []byte(key), value))
}

// value returns the bytes behind the head and the key of an entry, as many as its head says.
func (f *forger) value(at int, key string) []byte {
	return f.mem[at+headSize+len(key):][:order.Uint32(f.mem[at+enValueLen:])]
}

func (f *forger) want(namespace, key string, now time.Duration, want string) {
	f.reads = append(f.reads, stated{"forged", namespace, key, now, want})
}

// forge publishes a key, changes its entry, and signs it.
func (f *forger) forge(key string, owner uint8, now time.Duration, want string, change func(entry []byte, slot int)) {
	at, slot := f.publish(3, space.Seed, key, owner)
	change(f.mem[at:], slot)
	f.sign(at, key, f.value(at, key))
	f.want("users", key, now, want)
}

// forgedRegion returns the region, and the reads that find each entry.
func forgedRegion(t *testing.T) (memory, []stated) {
	f := &forger{t: t, w: new(Writer), mem: memory(wordsAsBytes(make([]uint64, MinSize/8)))}
	f.mem.word(atID).Store(7)
	f.shape = shapeOf(MinSize)
	long := strings.Repeat("n", kv.MaxNamespaceLen)
	for slot, name := range map[kv.NamespaceID]string{3: "users", 200: long, 201: "ended", 202: "boundless"} {
		f.w.SetNamespace(slot, Space{Name: name, Seed: space.Seed, Bound: second})
	}
	f.r = f.w.Attach(&File{mem: f.mem}, 11, 2*second, all)
	f.w.Certify(0, start)
	f.w.Certify(9, start)
	f.r.Count()

	u64 := func(place int, v uint64) func([]byte, int) {
		return func(e []byte, _ int) { order.PutUint64(e[place:], v) }
	}
	u32 := func(place int, v uint32) func([]byte, int) {
		return func(e []byte, _ int) { order.PutUint32(e[place:], v) }
	}
	f.forge("version", 0, start, "hit", u64(enVersion, 1234)) // what is signed is served
	f.forge("position", 0, start, "miss", u64(enPosition, 1))
	f.forge("hash", 0, start, "miss", u64(enHash, 1))
	f.forge("incarnation", 0, start, "miss", u64(enIncarnation, 99))
	f.forge("generation", 0, start, "miss", u64(enNamespaceG, 99))
	f.forge("partition", 0, start, "miss", u64(enPartitionG, 99))
	f.forge("end", 0, start-1, "hit", u64(enDeadline, uint64(start+clockError)))
	f.want("users", "end", start, "miss")
	f.forge("end-is-no-time", 0, start, "miss", u64(enDeadline, 1<<63))
	f.forge("slot", 0, start, "miss", u32(enNamespace, 200)) // whose incarnation and generation are the same
	f.forge("owner", 9, start, "miss", u32(enOwner, MaxOwners))
	f.mem.word(atOwners + 8*MaxOwners).Store(uint64(start)) // what lies behind the table
	f.forge("key-length", 0, start, "miss", u32(enKeyLen, uint32(len("key-length")-1)))

	// Owners that were never certified, or at no time. Of this host the machine has just started.
	f.forge("uncertified", 10, second/2, "miss", u64(enVersion, 10))
	f.mem.word(atOwners + 8*11).Store(math.MaxUint64 - uint64(second/10) + 1)
	f.forge("certified-at-no-time", 11, second/10, "miss", u64(enVersion, 11))

	// Another key of the same hash; the checksum over what is there, and over what was asked for.
	at, _ := f.publish(3, space.Seed, "another-key-1", 0)
	copy(f.mem[at+headSize:], "another-key-0")
	f.sign(at, "another-key-0", []byte("forged"))
	f.want("users", "another-key-1", start, "miss")
	f.forge("another-key-2", 0, start, "miss", func(e []byte, _ int) { copy(e[headSize:], "another-key-0") })

	// The checksum covers the head.
	at, _ = f.publish(3, space.Seed, "unsigned", 0)
	order.PutUint64(f.mem[at+enVersion:], 1234)
	f.want("users", "unsigned", start, "miss")

	// A slot that has no namespace any more, and a bound that is no time.
	at, _ = f.publish(201, space.Seed, "a", 0)
	f.mem.word(atNames + 201*nameSize + nsIncarnation).Store(0)
	order.PutUint64(f.mem[at+enIncarnation:], 0)
	f.sign(at, "a", []byte("forged"))
	f.want("ended", "a", start, "gone")
	f.mem.word(atNames + 202*nameSize + nsBound).Store(1 << 63)
	f.publish(202, space.Seed, "b", 9)
	f.want("boundless", "b", start, "miss")

	// The last word of a bucket, behind words of other tags; and a tag of zero, behind an empty word.
	f.forge("last-of-its-bucket", 0, start, "hit", func(_ []byte, slot int) {
		word := f.mem.word(slot).Load()
		for i := range slotsIn - 1 {
			f.mem.word(slot + 8*i).Store(word + uint64(1+i)<<posBits + 1)
		}
		f.mem.word(slot + 8*(slotsIn-1)).Store(word)
	})
	key := ""
	for i := 0; key == ""; i++ {
		if k := fmt.Sprint("tag-of-zero-", i); tagOf(kv.HashKey(space.Seed, []byte(k))) == 0 {
			key = k
		}
	}
	f.forge(key, 0, start, "hit", func(_ []byte, slot int) {
		f.mem.word(slot + 8).Store(f.mem.word(slot).Load())
		f.mem.word(slot).Store(0)
	})

	f.atTheEnd()
	// Longer than any value. Its bytes are the zeros behind the last entry.
	f.forge("too-long", 0, start, "miss", u32(enValueLen, MaxValue+1))
	return f.mem, f.reads
}

// atTheEnd makes entries that begin within the file and end beyond it. It signs their values
// as far as the file goes, and also with zeros in place of what is missing. A head that ends
// beyond the file cannot be signed: a reader without its guard can only fail there.
func (f *forger) atTheEnd() {
	const long = 400
	for _, c := range []struct {
		key   string
		back  uint64 // lines before the end
		zeros bool
	}{
		{"head-beyond-the-end", 1, false},
		{"value-beyond-the-end", 3, false},
		{"value-beyond-the-end-zeros", 5, true},
	} {
		from, slot := f.publish(3, space.Seed, c.key, 0)
		position := 2*f.lines - c.back // not below tail
		word := f.mem.word(slot)
		word.Store(word.Load()&^posMask | position)
		at := f.atLine(position)
		order.PutUint64(f.mem[from+enPosition:], position)
		order.PutUint32(f.mem[from+enValueLen:], long)
		copy(f.mem[at:], f.mem[from:from+headSize+len(c.key)])
		f.want("users", c.key, start, "miss")
		if c.back > 1 {
			value := bytes.Clone(f.mem[at+headSize+len(c.key):])
			if c.zeros {
				value = append(value, make([]byte, long-len(value))...)
			}
			f.sign(at, c.key, value)
		}
	}
}
