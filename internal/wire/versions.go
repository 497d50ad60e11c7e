package wire

import "encoding/binary"

// NewestVersion returns the newest version in a message between sidecars: the newest of its
// clocks, ballots, floors and entries. A receiver checks that this version is plausible
// before it uses any part of the message.

func (h *PeerHello) NewestVersion() uint64 { return max(h.Clock, newestFloor(h.Floors)) }
func (poll *Poll) NewestVersion() uint64   { return max(poll.Clock, newestBallot(poll.Ballots)) }
func (a *Acquire) NewestVersion() uint64   { return max(a.Clock, uint64(a.Ballot.Clock)) }
func (auth *Auth) NewestVersion() uint64   { return max(auth.Clock, newestBallot(auth.Ownerships)) }
func (authorized *Authorized) NewestVersion() uint64 {
	return max(authorized.Clock, newestFloor(authorized.Floors))
}
func (note *Note) NewestVersion() uint64       { return note.Floor.Version }
func (noted *Noted) NewestVersion() uint64     { return noted.Clock }
func (fetched *Fetched) NewestVersion() uint64 { return max(fetched.AsOf, fetched.Entry.Version) }
func (relay *Relay) NewestVersion() uint64     { return relay.Events.NewestVersion() }

func (acquired *Acquired) NewestVersion() uint64 {
	return max(acquired.Clock, uint64(acquired.Ballot.Clock),
		newestBallot(acquired.Authorities), newestFloor(acquired.Floors))
}

func (followed *Followed) NewestVersion() uint64 {
	return max(followed.Clock, followed.Events.NewestVersion(), newestFloor(followed.Floors))
}

func (pulled *Pulled) NewestVersion() uint64 {
	newest := pulled.AsOf
	for i := range pulled.Entries {
		newest = max(newest, pulled.Entries[i].Version)
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
func (events *Events) NewestVersion() (newest uint64) {
	for b := events.Packed; len(b) >= eventSize; b = b[eventSize:] {
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
