package gossip

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// memberlist's message types, part of its protocol.
const (
	msgPing         = 0
	msgIndirectPing = 1
	msgAck          = 2
	msgSuspect      = 3
	msgAlive        = 4
	msgDead         = 5
	msgPushPull     = 6
	msgCompound     = 7
	msgUser         = 8
	msgCompress     = 9
	msgEncrypt      = 10
	msgNack         = 11
	msgCRC          = 12
	msgErr          = 13
	msgLabel        = 244
)

// filter looks at messages before memberlist does. memberlist inflates what is
// compressed, allocates what a header announces, and follows what is nested, all
// without bounds. filter passes on only what members send: see doc.go.
//
// With a key the messages are encrypted, and only members can have written them. Of
// these messages filter checks the length, and the version of the encryption. The
// version is not signed. With version 0, which pads, memberlist would take the last
// byte of a member's text for a length, and panic; a stranger may have recorded that
// text, or been sent it.
type filter struct {
	cluster  string
	keyed    func() bool
	indirect *rate.Limiter

	garbage    *atomic.Int64 // of all reasons
	compressed atomic.Int64
	foreign    atomic.Int64
	refused    atomic.Int64 // streams beyond their number

	mu   sync.Mutex
	open []*stream // from others, oldest first
}

func newFilter(cluster string, keyed func() bool, garbage *atomic.Int64) *filter {
	return &filter{
		cluster: cluster, keyed: keyed, garbage: garbage,
		indirect: rate.NewLimiter(indirectRate, indirectRate),
	}
}

// packet returns why a packet is dropped; nil: it is passed on.
func (f *filter) packet(b []byte) error {
	err := f.check(b)
	if err != nil {
		f.count(err)
		f.garbage.Add(1)
	}
	return err
}

func (f *filter) count(err error) {
	switch {
	case errors.Is(err, errCompressed):
		f.compressed.Add(1)
	case errors.Is(err, errForeign):
		f.foreign.Add(1)
	}
}

func (f *filter) check(b []byte) error {
	if len(b) > maxPacket {
		return errLong
	}
	w := &window{b: b}
	if err := f.label(w); err != nil {
		return err
	}
	b = w.rest()
	if f.keyed() {
		if len(b) < minEncrypted || b[0] != encryptionVersion {
			return errUnreadable
		}
		return nil
	}
	if len(b) >= 5 && b[0] == msgCRC {
		b = b[5:]
	}
	return f.message(b, false)
}

// label takes the header that names the cluster.
func (f *filter) label(w *window) error {
	if f.cluster == "" {
		if c, err := w.peek(); err == nil && c == msgLabel {
			return errForeign
		}
		return nil
	}
	head, err := w.take(2)
	if err != nil {
		return err
	}
	if head[0] != msgLabel || int(head[1]) != len(f.cluster) {
		return errForeign
	}
	name, err := w.take(len(f.cluster))
	if err == nil && string(name) != f.cluster {
		err = errForeign
	}
	return err
}

// message judges one message of a packet. A message within a compound one must not be
// compound itself.
func (f *filter) message(b []byte, within bool) error {
	if len(b) == 0 {
		return errUnreadable
	}
	kind, b := b[0], b[1:]
	switch kind {
	case msgCompress:
		return errCompressed
	case msgCompound:
		if within {
			return errUnreadable
		}
		return f.compound(b)
	case msgUser:
		if len(b) < 1 || len(b) > 1+maxPayload {
			return errUnreadable
		}
		return nil
	case msgPing, msgIndirectPing, msgAck, msgNack, msgSuspect, msgAlive, msgDead:
		w := &window{b: b}
		if _, err := w.fields(); err != nil {
			return err
		}
		if len(w.rest()) > 0 {
			return errUnreadable
		}
		if kind == msgIndirectPing && !f.indirect.Allow() {
			return errLong
		}
		return nil
	}
	return errUnreadable
}

// compound judges a compound message: the number of its parts, their lengths, and the
// parts.
func (f *filter) compound(b []byte) error {
	if len(b) < 1 || len(b) < 1+2*int(b[0]) {
		return errUnreadable
	}
	lengths, parts := b[1:1+2*int(b[0])], b[1+2*int(b[0]):]
	for ; len(lengths) > 0; lengths = lengths[2:] {
		n := int(lengths[0])<<8 | int(lengths[1])
		if n > len(parts) {
			return errUnreadable
		}
		if err := f.message(parts[:n], true); err != nil {
			return err
		}
		parts = parts[n:]
	}
	if len(parts) > 0 {
		return errUnreadable
	}
	return nil
}

// stream reads what another node sends on a stream, an answer or not, and returns how
// many bytes may follow that memberlist reads itself.
func (f *filter) stream(w *window, answer bool) (follow int, err error) {
	if !answer {
		if err := f.label(w); err != nil {
			return 0, err
		}
	}
	kind, err := w.take(1)
	if err != nil {
		return 0, err
	}
	switch keyed := f.keyed(); {
	case keyed && kind[0] == msgEncrypt:
		return w.encrypted()
	case keyed, kind[0] == msgEncrypt:
		return 0, nil // memberlist tells the other side that one of the two has no key
	case kind[0] == msgCompress:
		return 0, errCompressed
	case kind[0] == msgPushPull:
		return 0, exchange(w)
	case !answer && kind[0] == msgPing, answer && (kind[0] == msgAck || kind[0] == msgErr):
		_, err := w.fields()
		return 0, err
	}
	return 0, errUnreadable
}

// encrypted takes the head of an encrypted message on a stream, and returns how many
// bytes follow.
func (w *window) encrypted() (follow int, err error) {
	n, err := w.number(4)
	switch {
	case err != nil:
		return 0, err
	case n > maxStream+maxEncryptionOverhead:
		return 0, errLong
	case n < minEncrypted:
		return 0, errUnreadable
	}
	if version, err := w.take(1); err != nil || version[0] != encryptionVersion {
		return 0, cmp.Or(err, errUnreadable)
	}
	return int(n) - 1, nil
}

// exchange reads all that a node tells about the members it knows.
func exchange(w *window) error {
	head, err := w.fields()
	switch {
	case err != nil:
		return err
	case head.nodes > maxNodes:
		return fmt.Errorf("%w: it announces %d nodes, %d are the most", errLong, head.nodes, maxNodes)
	case head.userState != 0:
		return errUnreadable
	}
	for range head.nodes {
		if _, err := w.fields(); err != nil {
			return err
		}
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
