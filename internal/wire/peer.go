package wire

//lint:file-ignore U1000 the fields _msgpack are there for their tags

// What sidecars say to each other, beside the requests of apps that they pass
// on. The bodies are arrays; a later version may add elements at their end.

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
	Purpose    string            // "poll" or "call"
	Settings   map[string]string // what must be the same on all nodes
	WallMS     int64             // the sender's wall clock
	Clock      uint64            // its version clock
}

// Ballot names an attempt to take partitions.
type Ballot struct {
	_msgpack struct{} `msgpack:",as_array"`

	Clock uint64
	From  Process
}

// Promise is a ballot that a node has answered.
type Promise struct {
	_msgpack struct{} `msgpack:",as_array"`

	Ballot     Ballot
	Partitions []byte // a bit each, little-endian
}

// Poll is the body of POLL, and of its answer.
type Poll struct {
	_msgpack struct{} `msgpack:",as_array"`

	State   uint64 // counts the changes of the next three
	Joined  bool
	In      bool
	Weight  uint32
	Leased  bool
	Ballots []Promise
	Next    uint64
	Have    uint64
	WallMS  int64
	Clock   uint64
	Cannot  []string // members that the sender cannot poll
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
}

// Pull asks for the next entries of a handoff.
type Pull struct {
	_msgpack struct{} `msgpack:",as_array"`

	Ballot Ballot
	Batch  uint64 // counted from zero; one that is asked for again is sent again
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

// Goodbye says that a process has left and holds nothing.
type Goodbye struct {
	_msgpack struct{} `msgpack:",as_array"`

	From Process
}
