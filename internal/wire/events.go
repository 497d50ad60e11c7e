package wire

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Events is a list of log events, in order. Packed has 17 bytes for each event: its kind
// in 1 byte, then the hash of its key and its version in 8 bytes each, big-endian. Each
// event of a kind with details takes the next element of Details.
type Events struct {
	Packed  []byte
	Details []EventDetail
}

// EventDetail is the part of an event that only some kinds have.
type EventDetail struct {
	Partitions []byte // a set, as in Promise
	Namespace  string
}

// The kinds of events.
const (
	EventChanged uint8 = iota // a key changed; without details
	EventRaised               // floors of partitions were raised
	EventFlushed              // a namespace was flushed; "" means all
	eventKinds
)

const eventSize = 17

// Grow makes room for n more events.
func (events *Events) Grow(n int) { events.Packed = slices.Grow(events.Packed, n*eventSize) }

// Add appends an event. detail is nil for EventChanged.
func (events *Events) Add(kind uint8, hash, version uint64, detail *EventDetail) {
	events.Packed = append(events.Packed, kind)
	events.Packed = binary.BigEndian.AppendUint64(events.Packed, hash)
	events.Packed = binary.BigEndian.AppendUint64(events.Packed, version)
	if detail != nil {
		events.Details = append(events.Details, *detail)
	}
}

// Len returns the number of events.
func (events *Events) Len() int { return len(events.Packed) / eventSize }

// Each calls f for each event, in order. If the events are malformed, Each returns an
// error and does not call f.
func (events *Events) Each(f func(kind uint8, hash, version uint64, detail *EventDetail)) error {
	details := 0
	if len(events.Packed)%eventSize != 0 {
		return fmt.Errorf("%d bytes of events: each has %d", len(events.Packed), eventSize)
	}
	for b := events.Packed; len(b) > 0; b = b[eventSize:] {
		switch {
		case b[0] >= eventKinds:
			return fmt.Errorf("an event of kind %d: there are %d kinds", b[0], eventKinds)
		case b[0] != EventChanged:
			details++
		}
	}
	if details != len(events.Details) {
		return fmt.Errorf("%d details of %d events", len(events.Details), details)
	}
	details = 0
	for b := events.Packed; len(b) > 0; b = b[eventSize:] {
		var d *EventDetail
		if b[0] != EventChanged {
			d = &events.Details[details]
			details++
		}
		f(b[0], binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint64(b[9:]), d)
	}
	return nil
}

const markSize = 18

// AppendMark appends the log positions of the last events in a partition: 18 bytes, the
// partition in 2, the position of the last change and that of the last floor in 8 each,
// big-endian.
func AppendMark(dst []byte, partition uint16, changed, raised uint64) []byte {
	dst = binary.BigEndian.AppendUint16(dst, partition)
	dst = binary.BigEndian.AppendUint64(dst, changed)
	return binary.BigEndian.AppendUint64(dst, raised)
}

// EachMark calls f for each mark. If the marks are malformed, EachMark returns an error
// and does not call f.
func EachMark(b []byte, f func(partition uint16, changed, raised uint64)) error {
	if len(b)%markSize != 0 {
		return fmt.Errorf("%d bytes of marks: each has %d", len(b), markSize)
	}
	for ; len(b) > 0; b = b[markSize:] {
		f(binary.BigEndian.Uint16(b), binary.BigEndian.Uint64(b[2:]), binary.BigEndian.Uint64(b[10:]))
	}
	return nil
}
