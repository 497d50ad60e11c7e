package gossip

import (
	"bufio"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/memberlist"
)

// Bounds of what comes to the port.
const (
	maxPacket       = 2 << 10 // bytes; members send 1,400 at most
	maxStream       = 1 << 20 // bytes of an exchange; 100 nodes take 20 KiB
	maxStreams      = 64      // from others, at once; one lasts streamTimeout at most
	maxStreamsPerIP = 16      // of them, from one IP address
)

// Of memberlist's protocol.
const (
	msgCompress       = 9
	msgEncrypt        = 10
	encryptionVersion = 1 // of the encryption, the only one that members use
)

var (
	errCompressed = errors.New("gossip: compressed, which no member sends")
	errLong       = errors.New("gossip: longer than a member's")
	errVersion    = errors.New("gossip: encrypted in a version that no member uses")
)

// filter bounds what memberlist reads. With a key the rest is memberlist's: it refuses what
// no member has encrypted. But it reads up to 20 MiB of a stream before that. And the
// version of the encryption is not signed: with version 0, which pads, memberlist takes the
// last byte of a text for a length, and panics. A stranger may have recorded that text, or
// been sent it. Without a key filter does not look into messages: see doc.go.
type filter struct {
	cluster string
	keyed   bool

	garbage    *atomic.Int64 // of all reasons
	compressed atomic.Int64
	foreign    atomic.Int64
	refused    atomic.Int64 // streams beyond their number

	mu   sync.Mutex
	open []*stream // from others, oldest first
}

// packet says whether a packet is passed on.
func (f *filter) packet(b []byte) bool {
	message, label, err := memberlist.RemoveLabelHeaderFromPacket(b)
	switch {
	case err != nil, len(b) > maxPacket, len(message) == 0:
	case label != f.cluster:
		f.foreign.Add(1)
	case f.keyed && message[0] != encryptionVersion:
	case !f.keyed && message[0] == msgCompress:
		f.compressed.Add(1)
	default:
		return true
	}
	f.garbage.Add(1)
	return false
}

// stream looks at the head of a stream, and returns why it ends. A label stands first,
// except in answers. If it is not this cluster's, stream sees other bytes than it believes,
// and memberlist ends the stream.
func (f *filter) stream(in *bufio.Reader, answer bool) error {
	kind := 0
	if f.cluster != "" && !answer {
		kind = 2 + len(f.cluster)
	}
	last := kind
	if f.keyed {
		last += 5 // the version, behind a length of four bytes
	}
	b, err := in.Peek(last + 1)
	switch {
	case err != nil:
		return err
	case f.keyed && b[kind] == msgEncrypt && binary.BigEndian.Uint32(b[kind+1:]) > maxStream:
		return errLong // before a byte of it is read
	case f.keyed && b[kind] == msgEncrypt && b[last] != encryptionVersion:
		return errVersion
	case !f.keyed && b[kind] == msgCompress:
		f.compressed.Add(1)
		return errCompressed
	}
	return nil
}

// admit says whether one more stream of an address may be open. If there are too many
// streams in all, it closes the oldest stream of the address that has most.
func (f *filter) admit(s *stream) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	count, most := map[string]int{}, 0
	for _, o := range f.open {
		count[o.ip]++
		most = max(most, count[o.ip])
	}
	switch {
	case count[s.ip] >= maxStreamsPerIP:
		f.refused.Add(1)
		f.garbage.Add(1)
		return false
	case len(f.open) >= maxStreams:
		f.refused.Add(1)
		f.garbage.Add(1)
		i := slices.IndexFunc(f.open, func(o *stream) bool { return count[o.ip] == most })
		_ = f.open[i].Conn.Close() // wakes its reader, which closes the rest
		f.open = slices.Delete(f.open, i, i+1)
	}
	f.open = append(f.open, s)
	return true
}

func (f *filter) leave(s *stream) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open = slices.DeleteFunc(f.open, func(o *stream) bool { return o == s })
}

func (f *filter) streams() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.open)
}
