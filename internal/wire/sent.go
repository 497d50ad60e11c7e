package wire

// Sent is a message between sidecars that names the process that sends it. A
// receiver holds the name to the connection's.
//
// Other names in messages are of others: the holders of promises, the members of
// a ring, whom a host cannot poll.
type Sent interface {
	// Senders are all that the message has, which must be one and the same.
	Senders() []Process
}

// Senders is who acquires.
func (a *Acquire) Senders() []Process { return []Process{a.Ballot.From} }

// Senders are those under whose ballots the partitions are held.
func (a *Auth) Senders() []Process {
	list := make([]Process, len(a.Ownerships))
	for i, h := range a.Ownerships {
		list[i] = h.Ballot.From
	}
	return list
}

// Senders is who has acquired what is handed over.
func (p *Pull) Senders() []Process { return []Process{p.Ballot.From} }

// Senders is who has acquired the entry's partition.
func (f *Fetch) Senders() []Process { return []Process{f.Ballot.From} }

// Senders is who leaves.
func (g *Goodbye) Senders() []Process { return []Process{g.From} }
