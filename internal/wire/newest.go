package wire

import "encoding/binary"

// Newest returns the newest version in a message between sidecars: the newest of its
// clocks, ballots, floors and entries. A receiver checks that this version is plausible
// before it uses any part of the message.

func (h *PeerHello) Newest() uint64  { return max(h.Clock, newestFloor(h.Floors)) }
func (w *Poll) Newest() uint64       { return max(w.Clock, newestBallot(w.Ballots)) }
func (w *Acquire) Newest() uint64    { return max(w.Clock, w.Ballot.Clock) }
func (w *Auth) Newest() uint64       { return max(w.Clock, newestBallot(w.Ownerships)) }
func (w *Authorized) Newest() uint64 { return max(w.Clock, newestFloor(w.Floors)) }
func (w *Note) Newest() uint64       { return w.Floor.Version }
func (w *Noted) Newest() uint64      { return w.Clock }
func (w *Fetched) Newest() uint64    { return max(w.AsOf, w.Entry.Version) }
func (w *Relay) Newest() uint64      { return w.Events.Newest() }

func (w *Acquired) Newest() uint64 {
	return max(w.Clock, w.Ballot.Clock, newestBallot(w.Authorities), newestFloor(w.Floors))
}

func (w *Followed) Newest() uint64 {
	return max(w.Clock, w.Events.Newest(), newestFloor(w.Floors))
}

func (w *Pulled) Newest() uint64 {
	newest := w.AsOf
	for i := range w.Entries {
		newest = max(newest, w.Entries[i].Version)
	}
	return newest
}

// Newest returns the newest version in an answer to a request for keys.
func (r *Reply) Newest() uint64 {
	newest := max(r.Version, r.AsOf, r.Event)
	for i := range r.Items {
		newest = max(newest, r.Items[i].Newest())
	}
	return newest
}

// Newest returns the newest version of the events. It includes malformed events.
func (e *Events) Newest() (newest uint64) {
	for b := e.Packed; len(b) >= eventSize; b = b[eventSize:] {
		newest = max(newest, binary.BigEndian.Uint64(b[9:]))
	}
	return newest
}

func newestFloor(list []Floor) (newest uint64) {
	for i := range list {
		newest = max(newest, list[i].Version)
	}
	return newest
}

func newestBallot(list []Promise) (newest uint64) {
	for i := range list {
		newest = max(newest, list[i].Ballot.Clock)
	}
	return newest
}
