package wire

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tinylib/msgp/msgp"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// The messages between sidecars, except the requests of apps that sidecars forward. The
// bodies are arrays. README.md has the rule of how they may change: within a version, a
// field may only be added, as the last one and tagged `wire:"later"`. A receiver that does not know it ignores it.

// PeerVersion is the version of the protocol between sidecars.
const PeerVersion = 1

// PeerVersions returns the first two elements of a PeerHello's body, the lowest and the
// highest version that the sender speaks. Those are the same in every version, so that
// processes without a common version can say so.
func PeerVersions(body []byte) (lowest, highest int, err error) {
	if err := checkMsgpack(body); err != nil {
		return 0, 0, err
	}
	n, b, err := msgp.ReadArrayHeaderBytes(body)
	if err != nil || n < 2 {
		return 0, 0, errors.New("a greeting is an array that begins with two versions")
	}
	if lowest, b, err = msgp.ReadIntBytes(b); err == nil {
		highest, _, err = msgp.ReadIntBytes(b)
	}
	return lowest, highest, err
}

// PeerHello is the first message on a connection, and the answer to it.
type PeerHello struct {
	MinVersion int // the versions that the sender speaks; see PeerVersions
	MaxVersion int
	Cluster    string
	From       kv.Process
	Purpose    string            // "poll", "call", or "meet" for this message only
	Settings   map[string]string // settings that must be equal on all nodes
	WallMS     int64             // the sender's wall clock
	Clock      uint64            // its version clock
	Floors     []Floor           // the flushes that the sender knows of
}

// Promise is a ballot that a node has answered, or under which it owns, and the
// partitions of that ballot.
type Promise struct {
	Ballot     kv.Ballot
	Partitions []byte // a set, packed as by kv.PartitionSet
}

// Poll is the body of POLL and of its answer. Package l2/ownership has the rules of its fields.
type Poll struct {
	State      uint64 // counts the changes of the next three fields; tells late from new
	Joined     bool   // the sender has found its cluster, or found none for the detection time
	In         bool
	Weight     uint32
	Leased     bool      // the sender has a lease on the receiver, from a poll of its present process
	Ballots    []Promise // the highest that the sender has answered, changed since what the receiver has
	Next       uint64    // the sender's count of the changes of its Ballots
	Have       uint64    // the last Next of the receiver that the sender has
	WallMS     int64
	Clock      uint64
	Cannot     []kv.NodeID // members that the sender cannot poll
	Head       uint64      // end of the sender's log
	BootNS     uint64      // the sender's boot clock, read before sending; zero: not told
	Others     []Standing  // what other members told the sender, unless acknowledged
	OthersAt   uint64      // counts the changes of Others
	OthersHave uint64      // the last OthersAt of the receiver that the sender has
	Certified  []Certified // in answers
	Settings   uint64      // in answers: a digest of those that change an answer; zero: not told
}

// AskSettings is the body of SETTINGS, which asks for the digests of single settings.
type AskSettings struct {
	Digest uint64 // of the sender's settings, as in Poll
}

// Settings is the answer to SETTINGS: digests of the sender's settings that change an answer.
type Settings struct {
	Names []string // of the settings
	Of    []SettingsOf
}

// SettingsOf are the settings of one thing.
type SettingsOf struct {
	Of      string // "": the host; else with the prefix "namespaces." or "changes."
	Digests []byte // 8 bytes for each of Names, big-endian; zero: it has no such setting
}

// Certified is, in an answer to a poll, how long ago it was certified that all changes were deleted that
// a feed of changes had told of by then.
type Certified struct {
	Feed  string
	AgeMS uint64
	State string // the feed's checkpoint, up to 64 bytes
}

// Standing is what a member has told another member about itself.
type Standing struct {
	Process kv.Process
	State   uint64 // counts the member's changes
	Weight  uint32
	In      bool
}

// Acquire is the body of ACQUIRE.
type Acquire struct {
	Ballot     kv.Ballot
	State      uint64 // the sender's, as in Poll
	Partitions []byte
	Ring       []kv.Process
	Clock      uint64
}

// Acquired is the answer to ACQUIRE.
type Acquired struct {
	Ballot   kv.Ballot
	Granted  []byte
	Released []byte
	In       []kv.Process
	Clock    uint64
	Head     uint64 // end of the log, after the released ownerships ended

	// Under policy consistent: the sender answers as a voter, and the owners that it has acknowledged recently.
	// Under available: the ballots under which it has itself last owned what it grants.
	Voter       bool
	Authorities []Promise

	Floors []Floor // the flushes that the sender knows of, after it granted

	Passed []byte // partitions for which it has granted a higher ballot
	Keeps  bool   // the sender leaves, and a later process may have the released entries again
}

// Auth asks a voter to acknowledge the ownerships that the sender has or is about to
// begin.
type Auth struct {
	Ownerships []Promise
	Clock      uint64
}

// Authorized is the answer to AUTH.
type Authorized struct {
	Acknowledged [][]byte // partitions of each ownership; empty: the sender is no voter
	Clock        uint64
	Floors       []Floor // the flushes that the sender knows of, after it acknowledged
}

// Note tells a process about a flush of the cluster. The receiver records the flush
// before it answers: it drops all its entries, newer ones too, unless it has recorded
// this version before. A Note without a version only asks for the answer.
type Note struct {
	Floor  Floor
	WallMS int64
}

// Noted is the answer to NOTE.
type Noted struct {
	Clock  uint64 // read after the flush was recorded
	WallMS int64
	In     []kv.Process // the members that the sender has in, after it recorded the flush

	// Only under policy consistent.
	Voter  bool         // the sender answers as a voter
	Owners []kv.Process // the owners that it has acknowledged recently
}

// Pull asks for the next entries of a handoff.
type Pull struct {
	Ballot     kv.Ballot
	Batch      uint64 // number from zero; a batch that is requested again is sent again
	Partitions []byte // a set, part of the partitions released to the ballot; empty: all

	// Kept says which of them the sender's host has kept, by the ballots that it released them to.
	Kept []Kept
}

// Kept is a set of partitions, encoded as in Pull, whose entries a host has kept since it released them to a
// ballot.
type Kept struct {
	Ballot     kv.Ballot
	Partitions []byte
}

// Pulled is the answer to PULL.
type Pulled struct {
	AsOf    uint64 // the version of the release
	Entries []Entry
	Done    bool // no entries follow

	// Of Kept: the partitions that only the receiver of the request has owned since, under that ballot,
	// and the hashes of all keys that have changed there. The entries that were kept are not sent.
	Base    []byte
	Changed []byte // 8 bytes each, little-endian

	// In the first answer: what the sender knows of changes in partitions that it has released; none or one.
	Barriers []Barriers
}

// Barriers says how long ago keys of some partitions have changed, and may have. Package invalidation has the
// table that the keys and slots are of. Changed before CutMS is whatever is not named.
type Barriers struct {
	Partitions []byte // a set, as in Pull
	CutMS      uint32
	Keys       []byte // hashes: see AppendAge
	Slots      uint32 // of the table
	Floors     []byte // slots of which any key may have changed
	Since      []byte // partitions of which any key may have changed
	Emptied    []Emptied
	Lags       []Lag // what the sender has noted changes for
}

// Lag is the replica_lag of a namespace that has one.
type Lag struct {
	Namespace string
	LagMS     uint32
}

// Emptied says how long ago a namespace was flushed.
type Emptied struct {
	Namespace string
	AgeMS     uint32
}

// AgeSize is the length of an age, see AppendAge.
const AgeSize = 12

// AppendAge appends the age of a change of something: its number in 8 bytes, and the age in milliseconds in
// 4 bytes, big-endian.
func AppendAge(dst []byte, of uint64, ageMS uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(dst, of), ageMS)
}

// CheckAges returns an error if ages are malformed, or more than a number.
func CheckAges(b []byte, most int) error {
	if len(b)%AgeSize != 0 || len(b) > most*AgeSize {
		return fmt.Errorf("%d bytes of ages: each has %d, and they are at most %d", len(b), AgeSize, most)
	}
	return nil
}

// EachAge calls f for each age.
func EachAge(b []byte, f func(of uint64, ageMS uint32)) {
	for ; len(b) >= AgeSize; b = b[AgeSize:] {
		f(binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:]))
	}
}

// Fetch asks the former owner of a partition, which released it, for one entry.
type Fetch struct {
	Ballot    kv.Ballot
	Namespace string
	Key       []byte
}

// Fetched is the answer to FETCH.
type Fetched struct {
	AsOf  uint64
	Found bool
	Entry Entry
}

// Applied asks an owner to wait until no process can serve an older state of some
// partitions.
type Applied struct {
	Partitions []uint16
}

// AppliedBy is the answer to APPLIED.
type AppliedBy struct {
	// For each partition: the sender has owned it, and every process has applied its
	// changes.
	All []bool
}

// Goodbye says that a process has left the cluster and owns nothing.
type Goodbye struct {
	From kv.Process
}

// Follow asks for the events after a position in the log of the receiver. It also says
// that the sender has applied everything up to that position. If several Follow requests
// wait on a connection, the answer to each continues where the answer before it ended.
type Follow struct {
	Applied uint64
	WaitMS  uint32 // how long the answer may wait for an event
	Anew    bool   // start after Applied, regardless of earlier answers
}

// Followed is the answer to FOLLOW.
type Followed struct {
	After  uint64 // the requested position, or To of the answer before, unless Reset
	To     uint64 // the position to continue after
	Events Events // the events between After and To
	WallMS int64
	Clock  uint64 // read last

	// Reset says that the log no longer has the events between After and To. Marks and
	// Floors replace them.
	Reset  bool
	Marks  []byte // see AppendMark
	Floors []Floor

	// Tell asks the follower to report at once how far it has applied.
	Tell bool
}

// Floor is a flush of a namespace: entries older than the version are gone.
type Floor struct {
	Namespace string // "" means all
	Version   uint64
	AgeMS     uint32 // how long ago the sender, or a host before it, had noted it
}

// Relay is the part of its log that a process sends by gossip.
type Relay struct {
	From   kv.Process
	Events Events
}

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
