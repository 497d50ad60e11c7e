// Package failpoint lets tests take out, one by one, the guards that keep values from
// being returned after they were overwritten, in the code that ships. A checker that
// never finds anything may be blind, and a guard that can be taken out unnoticed may
// be useless.
//
// Without the build tag failpoint everything here is constant, and none of it remains
// in the program. The package has no goroutine.
package failpoint

// Guard is one guard.
type Guard uint8

// The guards. A line that begins with "..." continues the line above it.
const (
	// A copy is served under its owner's lease only ...
	LeaseAtHit Guard = iota
	// ... and if it came from the process that the ring names.
	OwnerAtHit
	AdmitAtHit      // ... and if the ledger admits it
	AdmitAtFill     // a copy is kept only if the ledger admits it
	AdmitAtHandoff  // ... and so is an entry that is handed over
	NoteEvents      // events of others' logs are noted
	ResetFloors     // a stand-in for lost events outdates their partitions
	Tail            // a reader is told if the events it asks for are gone
	Gap             // a place in a log moves over applied events only
	Head            // the lease waits for all events that the poll's answer named
	NewEpoch        // a new process's log is followed from its beginning
	AsOfFirst       // a value is attested as of a time before it was read
	OwnWrites       // a write through this host is noted before the answer
	JoinRule        // a call under way is joined only by callers that may have its answer
	Released        // the end of an ownership is an event
	Empty           // an ownership begins with nothing
	OfferFilter     // what was stored after an ownership's end is not handed over
	SecondCheck     // a write is acknowledged only if its ownership has lasted
	Pause           // a pause ends everything
	Strange         // others' writes to an owned partition in a split drop it
	AckAll          // ack=all waits for all hosts that may have a lease
	Detach          // no caller joins a load that began before a change
	AdmitAtLoad     // a loaded value is kept only if the ledger admits it
	FlushClocks     // a flush lies above the clocks of all
	FlushAgain      // ... and is told to the hosts that an answer names
	FlushMajority   // ... and noted by a majority of the voters
	FlushOwners     // ... and by each owner they acknowledge, until that is over
	FloorAtHandoff  // an entry handed over is compared with the flush by its version
	FloorsInReset   // what stands for lost events has the flushes too
	FloorsInLog     // a log has them
	FloorsInHello   // so has a greeting
	FloorsInAcquire // so has an answer to ACQUIRE
	FloorsInAuth    // so has an answer to AUTH
	Stutter         // gaps that add up to B are a pause
	Answered        // ... unless all members have answered a poll lately
	GapLocked       // a gap is judged before other goroutines see its end
	RunningTime     // silence of others counts only while this process runs
	ForgetDead      // a member is forgotten only if it is considered dead
	Overdue         // a write that was given up is not stored
	OverdueOrigin   // ... and no origin is asked to write it
	ConnEnded       // a write that waits for a connection that has ended is not executed
	NoSlot          // a DELETE is noted even if its namespace has no slot
	TouchEvent      // a write is noted under its event's version, which may not be the value's
	Copied          // what is filled over a value that may have copies is a change
	Unknown         // what may have been written through this host is noted
	LateWrite       // a late write-through is told to the key's owner at that time
	Superseded      // a write-through is not stored if a late one was told of meanwhile
	EndFromAsked    // a TTL that another host tells counts from before the request
	JoinEnded       // a call is not joined by callers that began after its value's end
	JoinOwnership   // a load is joined only in the ownership that it began in
	SourceOfEntry   // an entry handed over comes from the releaser of its partition
	Acquaintance    // gossip's word of a process counts only once it is known
	Namesake        // a replaced process that goes on counts once its namesake has gone
	Hint            // gossip's word of a known process's state counts for nothing either
	Hearsay         // ... its word "out" does, after long silence, and is not told on
	Attest          // a member that is heard is attested to those that may not hear it
	NamedInAnswer   // an answer to ACQUIRE that names an unknown process grants nothing
	HigherBallot    // an owner ends its ownership when it hears of a higher ballot
	HoldBack        // a late feed's namespaces are held back
	LateRaises      // ... and what was attested of them ends at other hosts
	Certify         // a certificate waits for the changes that came before it
	FeedState       // a feed goes on only where it was certified ...
	YoungState      // ... also at a machine that was started after that
	KeptBallot      // what was kept is of use to the next owner but one only ...
	KeptDelta       // ... but for the keys that the owner between has changed ...
	KeptFills       // ... or filled, ...
	KeptRaised      // ... and if it has lost nothing as a whole
	DeleteBars      // a load just after a deletion is not kept, with a replica_lag ...
	WriteBars       // ... nor after a write ...
	FlushBars       // ... or a flush, ...
	BegunBars       // ... nor just after an ownership began ...
	HandedBars      // ... or after a change that its last owner tells of
	// A value gets into the memory that apps share only if the ledger admits it ...
	AdmitAtPublish
	Withdraw    // ... and leaves it with a change of its key, ...
	FloorEnds   // ... a floor of its partition, ...
	FlushEnds   // ... a flush of its namespace, ...
	ViewedEnds  // ... another owner ...
	StoppedEnds // ... and the end of an ownership

	Guards // the number of guards
)

// Point is a place at which a test may let other goroutines go first.
type Point uint8

// The points.
const (
	ValueRead Point = iota // a value has been read from the store, and not yet attested
	WriteDue               // a write has found its ownership, and is not yet stored
	WriteDone              // a write is stored, and has not yet looked at its ownership again
	FlushDue               // a flush has its first version, and is not yet told
	GapFound               // a gap has been found, and not yet judged
	KeyDue                 // the load barrier of a partition has been read, and not yet its key's

	Points // the number of points
)

var names = [Guards]string{
	LeaseAtHit:      "lease at a copy's hit",
	OwnerAtHit:      "owner and epoch at a copy's hit",
	AdmitAtHit:      "Admit at a copy's hit",
	AdmitAtFill:     "Admit at a copy's fill",
	AdmitAtHandoff:  "Admit at an entry handed over",
	NoteEvents:      "note of followed events",
	ResetFloors:     "RESET's floors",
	Tail:            "RESET beyond the log's tail",
	Gap:             "no advance over a gap",
	Head:            "head before the lease moves",
	NewEpoch:        "new epoch without a lease",
	AsOfFirst:       "asOf before the value is read",
	OwnWrites:       "note of own writes",
	JoinRule:        "rule for joining calls",
	Released:        "RELEASED in the log",
	Empty:           "partition empty at its beginning",
	OfferFilter:     "version filter of offers",
	SecondCheck:     "second check of a write",
	Pause:           "pause ends everything",
	Strange:         "strange events after a split",
	AckAll:          "ack=all waits for leases",
	Detach:          "a change ends the joining of loads",
	AdmitAtLoad:     "Admit at a loaded value",
	FlushClocks:     "clocks before a flush",
	FlushAgain:      "FLUSH's further rounds",
	FlushMajority:   "a majority notes a flush",
	FlushOwners:     "owners note a flush",
	FloorAtHandoff:  "a flush's version at an entry handed over",
	FloorsInReset:   "flushes in RESET",
	FloorsInLog:     "flushes in logs",
	FloorsInHello:   "flushes in greetings",
	FloorsInAcquire: "flushes in answers to ACQUIRE",
	FloorsInAuth:    "flushes in answers to AUTH",
	Stutter:         "gaps add up",
	Answered:        "gaps add up only if polls go unanswered",
	GapLocked:       "a gap is judged under the lock",
	RunningTime:     "silence counts while the process runs",
	ForgetDead:      "only dead members are forgotten",
	Overdue:         "no late write is stored",
	OverdueOrigin:   "no late write at an origin",
	ConnEnded:       "no write of an ended connection",
	NoSlot:          "note of a DELETE without a slot",
	TouchEvent:      "version of a TOUCH's event",
	Copied:          "a fill over what may have copies is a change",
	Unknown:         "note of a write of unknown outcome",
	LateWrite:       "owners are told of late write-throughs",
	Superseded:      "a superseded write-through is not stored",
	EndFromAsked:    "end counted from the request",
	JoinEnded:       "no call joins one whose value has ended",
	JoinOwnership:   "loads joined in their ownership",
	SourceOfEntry:   "source of an entry handed over",
	Acquaintance:    "only known processes count",
	Namesake:        "a replaced process counts again after its namesake",
	Hint:            "gossip's word of a state is a hint",
	Hearsay:         "gossip's word that a host is out is not told on",
	Attest:          "hosts attest the members that they hear",
	NamedInAnswer:   "members named in an answer are known",
	HigherBallot:    "a higher ballot ends an ownership",
	HoldBack:        "a late feed's values are held back",
	LateRaises:      "a late feed ends other hosts' copies",
	Certify:         "a certificate waits for earlier changes",
	FeedState:       "a stream is compared with what was certified",
	YoungState:      "what was certified before this machine's start",
	KeptBallot:      "kept entries outlive one owner",
	KeptDelta:       "changes end kept entries",
	KeptFills:       "fills end kept entries",
	KeptRaised:      "what ends a partition ends its kept entries",
	DeleteBars:      "loads after a deletion are not kept",
	WriteBars:       "loads after a write are not kept",
	FlushBars:       "loads after a flush are not kept",
	BegunBars:       "loads after an ownership began are not kept",
	HandedBars:      "loads after what the last owner knows are not kept",
	AdmitAtPublish:  "Admit at a value that apps share",
	Withdraw:        "a change ends a shared value",
	FloorEnds:       "a floor ends shared values",
	FlushEnds:       "a flush ends shared values",
	ViewedEnds:      "another owner ends shared values",
	StoppedEnds:     "an ownership's end ends shared values",
}

func (g Guard) String() string { return names[g] }
