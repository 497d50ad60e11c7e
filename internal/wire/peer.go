package wire

//lint:file-ignore U1000 the fields _msgpack are there for their tags

// What sidecars say to each other, beside the requests of apps that they pass
// on. The bodies are arrays of as many elements as the version has.

// PeerVersion is the version of the protocol between sidecars.
const PeerVersion = 1

// Process names one run of a node.
type Process struct {
	_msgpack struct{} `msgpack:",as_array"`

	Node  string
	Epoch uint64
}

// PeerHello is the first thing on a connection, and its answer.
type PeerHello struct {
	_msgpack struct{} `msgpack:",as_array"`

	MinVersion int
	MaxVersion int // in the answer: the version chosen
	Cluster    string
	From       Process
	Purpose    string            // "poll" or "call", or "meet" for this alone
	Settings   map[string]string // what must be the same on all nodes
	WallMS     int64             // the sender's wall clock
	Clock      uint64            // its version clock
	Floors     []Floor           // the flushes that it knows of
}

// Ballot names an attempt to take partitions.
type Ballot struct {
	_msgpack struct{} `msgpack:",as_array"`

	Clock uint64
	From  Process
}

// Promise is a ballot that a node has answered, or holds under, and for which
// partitions.
type Promise struct {
	_msgpack struct{} `msgpack:",as_array"`

	Ballot     Ballot
	Partitions []byte // a set, as package cluster has it
}

// Poll is the body of POLL, and of its answer.
type Poll struct {
	_msgpack struct{} `msgpack:",as_array"`

	State      uint64 // counts the changes of the next three
	Joined     bool
	In         bool
	Weight     uint32
	Leased     bool
	Ballots    []Promise
	Next       uint64
	Have       uint64
	WallMS     int64
	Clock      uint64
	Cannot     []string   // members that the sender cannot poll
	Head       uint64     // of the sender's log
	BootNS     uint64     // its boot clock, read before this was sent; zero is not told
	Others     []Standing // what others have told the sender of themselves, if the receiver has not said that it knows
	OthersAt   uint64     // counts the changes of Others
	OthersHave uint64     // of the receiver's changes, what the sender has
}

// Standing is what a member says of itself, as another one has heard it.
type Standing struct {
	_msgpack struct{} `msgpack:",as_array"`

	Process Process
	State   uint64 // counts its changes
	Weight  uint32
	In      bool
}

// Acquire is the body of ACQUIRE.
type Acquire struct {
	_msgpack struct{} `msgpack:",as_array"`

	Ballot     Ballot
	State      uint64 // of the sender, as Poll has it
	Partitions []byte
	Ring       []Process
	Clock      uint64
}

// Acquired answers ACQUIRE.
type Acquired struct {
	_msgpack struct{} `msgpack:",as_array"`

	Ballot   Ballot
	Granted  []byte
	Released []byte
	In       []Process
	Clock    uint64
	Head     uint64 // of the log, once what the answer ends has ended

	// Under policy consistent.
	Voter       bool      // it answers as a voter
	Authorities []Promise // whom it has acknowledged lately, of the partitions

	Floors []Floor // the flushes that the sender knows of, once it has granted
}

// Auth asks a voter to acknowledge what its sender holds, or is about to.
type Auth struct {
	_msgpack struct{} `msgpack:",as_array"`

	Ownerships []Promise
	Clock    uint64
}

// Authorized answers AUTH.
type Authorized struct {
	_msgpack struct{} `msgpack:",as_array"`

	Acknowledged [][]byte // partitions of each of the holdings; none is no voter
	Clock        uint64
	Floors       []Floor // the flushes that the sender knows of, once it has acknowledged
}

// Note tells a flush of the cluster to a process, which notes it before it
// answers: it drops all that it has, newer things too, unless it has noted this
// version before. Without a version it asks for the answer alone.
type Note struct {
	_msgpack struct{} `msgpack:",as_array"`

	Floor  Floor
	WallMS int64
}

// Noted answers NOTE.
type Noted struct {
	_msgpack struct{} `msgpack:",as_array"`

	Clock  uint64 // from before the flush was noted
	WallMS int64
	In     []Process // the members that it has in, once it has noted

	// Under policy consistent.
	Voter   bool      // it answers as a voter
	Owners []Process // whom it has acknowledged lately
}

// Pull asks for the next entries of a handoff.
type Pull struct {
	_msgpack struct{} `msgpack:",as_array"`

	Ballot     Ballot
	Batch      uint64 // counted from zero; one that is asked for again is sent again
	Partitions []byte // a set: which of those released to the ballot; none is all
}

// Pulled answers PULL.
type Pulled struct {
	_msgpack struct{} `msgpack:",as_array"`

	AsOf    uint64 // the version of the release
	Entries []Entry
	Done    bool // nothing follows
}

// Entry is an entry on its way to another host.
type Entry struct {
	_msgpack struct{} `msgpack:",as_array"`

	Namespace string
	Key       []byte
	Value     []byte
	Flags     uint32
	Version   uint64
	TTLMS     int64 // left; zero is no expiry
	Hits      int
	Absent    bool // there is no value: the origin says so
}

// Fetch asks the releaser of a partition for one entry.
type Fetch struct {
	_msgpack struct{} `msgpack:",as_array"`

	Ballot    Ballot
	Namespace string
	Key       []byte
}

// Fetched answers FETCH.
type Fetched struct {
	_msgpack struct{} `msgpack:",as_array"`

	AsOf  uint64
	Found bool
	Entry Entry
}

// Applied asks a holder to wait until no process can serve what was in some
// partitions before.
type Applied struct {
	_msgpack struct{} `msgpack:",as_array"`

	Partitions []uint16
}

// AppliedBy answers APPLIED.
type AppliedBy struct {
	_msgpack struct{} `msgpack:",as_array"`

	All []bool // of each partition: it has been held, and everybody has what was there
}

// Goodbye says that a process has left and holds nothing.
type Goodbye struct {
	_msgpack struct{} `msgpack:",as_array"`

	From Process
}

// Follow asks for what comes after a place in the answering process's log, and
// says that everything up to there has been applied. Of several that wait on a
// connection each is answered with what follows the one before.
type Follow struct {
	_msgpack struct{} `msgpack:",as_array"`

	Applied uint64
	WaitMS  uint32 // how long the answer may wait for something to come
	Anew    bool   // begin after Applied, whatever was answered before
}

// Followed answers FOLLOW.
type Followed struct {
	_msgpack struct{} `msgpack:",as_array"`

	After  uint64 // the place asked for, or that of the answer before, unless Reset
	To     uint64 // the place after which to go on
	Events Events // what lies between
	WallMS int64
	Clock  uint64 // read after all else

	// Reset says that what lies between is not there any more: Marks and Floors
	// stand for it.
	Reset  bool
	Marks  []byte // see AppendMark
	Floors []Floor

	// Tell asks the follower to say at once how far it has applied.
	Tell bool
}

// Floor is a namespace's flush: entries from before the version are gone.
type Floor struct {
	_msgpack struct{} `msgpack:",as_array"`

	Namespace string // "" is all
	Version   uint64
}

// Relay is what a process tells of its log by gossip.
type Relay struct {
	_msgpack struct{} `msgpack:",as_array"`

	From   Process
	After  uint64
	Events Events
}
