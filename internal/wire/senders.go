package wire

import "github.com/cachesidecar/cachesidecar/internal/kv"

// NamesSender is a message between sidecars that names its sending process. The receiver
// refuses a name that differs from the connection's process.
//
// Other names in messages refer to other processes: those of the owners in promises, of
// the members of a ring, of the members that a host cannot poll.
type NamesSender interface {
	// Senders returns all senders that the message names. All must be the same process.
	Senders() []kv.Process
}

// Senders returns the process that acquires.
func (a *Acquire) Senders() []kv.Process { return []kv.Process{a.Ballot.Process} }

// Senders returns the processes of the ballots under which the partitions are owned.
func (auth *Auth) Senders() []kv.Process {
	list := make([]kv.Process, len(auth.Ownerships))
	for i, h := range auth.Ownerships {
		list[i] = h.Ballot.Process
	}
	return list
}

// Senders returns the process that has acquired the partitions of the handoff.
func (p *Pull) Senders() []kv.Process { return []kv.Process{p.Ballot.Process} }

// Senders returns the process that has acquired the entry's partition.
func (f *Fetch) Senders() []kv.Process { return []kv.Process{f.Ballot.Process} }

// Senders returns the process that leaves.
func (g *Goodbye) Senders() []kv.Process { return []kv.Process{g.From} }
