package wire

import "encoding/binary"

// NewestVersion returns the newest version in a message between sidecars: the newest of its
// clocks, ballots, floors and entries. A receiver checks that this version is plausible
// before it uses any part of the message.

func (h *PeerHello) NewestVersion() uint64  { return max(h.Clock, newestFloor(h.Floors)) }
func (w *Poll) NewestVersion() uint64       { return max(w.Clock, newestBallot(w.Ballots)) }
func (a *Acquire) NewestVersion() uint64    { return max(a.Clock, uint64(a.Ballot.Clock)) }
func (a *Auth) NewestVersion() uint64       { return max(a.Clock, newestBallot(a.Ownerships)) }
func (w *Authorized) NewestVersion() uint64 { return max(w.Clock, newestFloor(w.Floors)) }
func (w *Note) NewestVersion() uint64       { return w.Floor.Version }
func (w *Noted) NewestVersion() uint64      { return w.Clock }
func (w *Fetched) NewestVersion() uint64    { return max(w.AsOf, w.Entry.Version) }
func (w *Relay) NewestVersion() uint64      { return w.Events.NewestVersion() }

func (w *Acquired) NewestVersion() uint64 {
	return max(w.Clock, uint64(w.Ballot.Clock), newestBallot(w.Authorities), newestFloor(w.Floors))
}

func (w *Followed) NewestVersion() uint64 {
	return max(w.Clock, w.Events.NewestVersion(), newestFloor(w.Floors))
}

func (w *Pulled) NewestVersion() uint64 {
	newest := w.AsOf
	for i := range w.Entries {
		newest = max(newest, w.Entries[i].Version)
	}
	return newest
}

// NewestVersion returns the newest version in an answer to a request for keys.
func (r *Reply) NewestVersion() uint64 {
	newest := max(r.Version, r.AsOf, r.Event)
	for i := range r.Items {
		newest = max(newest, r.Items[i].NewestVersion())
	}
	return newest
}

// NewestVersion returns the newest version of the events. It includes malformed events.
func (e *Events) NewestVersion() (newest uint64) {
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
		newest = max(newest, uint64(list[i].Ballot.Clock))
	}
	return newest
}
