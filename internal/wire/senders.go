package wire

// NamesSender is a message between sidecars that names its sending process. The receiver
// refuses a name that differs from the connection's process.
//
// Other names in messages refer to other processes: those of the owners in promises, of
// the members of a ring, of the members that a host cannot poll.
type NamesSender interface {
	// Senders returns all senders that the message names. All must be the same process.
	Senders() []Process
}

// Senders returns the process that acquires.
func (a *Acquire) Senders() []Process { return []Process{a.Ballot.From} }

// Senders returns the processes of the ballots under which the partitions are owned.
func (a *Auth) Senders() []Process {
	list := make([]Process, len(a.Ownerships))
	for i, h := range a.Ownerships {
		list[i] = h.Ballot.From
	}
	return list
}

// Senders returns the process that has acquired the partitions of the handoff.
func (p *Pull) Senders() []Process { return []Process{p.Ballot.From} }

// Senders returns the process that has acquired the entry's partition.
func (f *Fetch) Senders() []Process { return []Process{f.Ballot.From} }

// Senders returns the process that leaves.
func (g *Goodbye) Senders() []Process { return []Process{g.From} }
