// Package strike lets tests take out, one by one, the guards that keep values
// from being returned after they were overwritten, in the code that ships: a
// checker that never finds anything may be blind, and a guard that can be taken
// out without anybody noticing may be idle.
//
// Without the build tag strike all of it is constant, and nothing is left of it
// in the program. It has no goroutine.
package failpoint

// Guard is one of them.
type Guard uint8

// The guards.
const (
	LeaseAtHit      Guard = iota // a copy is served under its owner's lease only
	OwnerAtHit                   // ... and if it came from the process that the ring names
	AdmitAtHit                   // ... and if the ledger admits it
	AdmitAtFill                  // a copy is kept only if the ledger admits it
	AdmitAtHandoff               // so is an entry that is handed over
	NoteEvents                   // events of others' logs are noted
	ResetFloors                  // what stands for lost events outdates their partitions
	Tail                         // who asks for events that are gone is told so
	Gap                          // a place in a log moves over what was applied only
	Head                         // the lease waits for all events that the poll's answer named
	NewEpoch                     // a new process's log is followed from its beginning
	AsOfFirst                    // a value is vouched for as of before it was read
	OwnWrites                    // what was written through this host is noted before the answer
	JoinRule                     // a call under way is joined by those only who may have its answer
	Released                     // the end of a holding is an event
	Empty                        // a holding begins with nothing
	OfferFilter                  // what was stored after a holding's end is not handed over
	SecondCheck                  // a write is acknowledged only if its holding has lasted
	Pause                        // a pause ends everything
	Strange                      // what others wrote to one's own partition in a split drops it
	AckAll                       // ack=all waits for those who may have a lease
	Detach                       // nobody joins a load that began before a change
	AdmitAtLoad                  // what was loaded is kept only if the ledger admits it
	FlushClocks                  // a flush lies above the clocks of all
	FlushAgain                   // ... and is told to whom an answer names
	FlushMajority                // ... and noted by a majority of the voters
	FlushOwners                 // ... and by whom they have acknowledged, or that is over
	FloorAtHandoff               // what is handed over is compared with the flush by its version
	FloorsInReset                // what stands for lost events has the flushes too
	FloorsInLog                  // a log has them
	FloorsInHello                // so has a greeting
	FloorsInAcquire              // so has an answer to ACQUIRE
	FloorsInAuth                 // so has an answer to AUTH
	Stutter                      // gaps that add up to B are a pause
	Answered                     // ... unless all members have answered a poll lately
	GapLocked                    // a gap is judged before it is over for others
	RunningTime                  // silence of others counts while this process runs
	ForgetDead                   // a member is forgotten only if it is held for dead
	Overdue                      // a write that was given up is not stored
	OverdueOrigin                // ... and no origin is asked to write it
	NoSlot                       // a DELETE is noted where its namespace has no slot
	TouchEvent                   // what a TOUCH has changed is noted under its event's version
	Unknown                      // what may have been written through this host is noted
	Settle                       // a late write through is told to whoever holds the key by then
	Overtaken                    // a write through is not stored where a late one was told of meanwhile
	EndFromAsked                 // a TTL that another host tells of counts from before it was asked
	JoinEnded                    // a call under way is not for those who began after its value's end
	JoinOwnership                  // a load is joined in the holding that it began in
	SourceOfEntry                // what is handed over comes from who has released its partition
	Acquaintance                 // gossip's word of a process counts for nothing until it is known
	RefusedName                  // ... which a refusal of a name does not make it, where a member has that name
	Namesake                     // a process that goes on counts again once another of its name has gone
	Hint                         // its word of what a known one is counts for nothing either
	Hearsay                      // ... that it is out does where it tells nothing for long, and is not told on
	Vouch                        // who is heard is told of to those that may not hear it
	NamedInAnswer                // an answer to ACQUIRE that names an unknown process as in grants nothing
	HigherBallot                 // who holds something ends it when it hears of a higher ballot

	Guards // their number
)

// Point is a place at which a test may let others go first.
type Point uint8

// The points.
const (
	ValueRead Point = iota // a value has been read from the store, and not yet vouched for
	WriteDue               // a write has found its holding, and is not yet stored
	FlushDue               // a flush has its first version, and is not yet told
	GapFound               // a gap has been found, and not yet judged
)

var names = [Guards]string{
	LeaseAtHit: "lease at a copy's hit", OwnerAtHit: "owner and epoch at a copy's hit", AdmitAtHit: "Admit at a copy's hit",
	AdmitAtFill: "Admit at a copy's fill", AdmitAtHandoff: "Admit at what is handed over",
	NoteEvents: "noting of followed events", ResetFloors: "RESET's floors", Tail: "RESET beyond the log's tail",
	Gap: "no advance over a gap", Head: "head before the lease moves", NewEpoch: "new epoch without a lease",
	AsOfFirst: "asOf before the value is read", OwnWrites: "note of own writes", JoinRule: "rule for joining calls",
	Released: "RELEASED in the log", Empty: "partition empty at its beginning", OfferFilter: "version filter of offers",
	SecondCheck: "second check of a write", Pause: "pause ends everything", Strange: "strange events after a split", AckAll: "ack=all waits for leases",
	Detach: "a change ends the joining of loads", AdmitAtLoad: "Admit at what was loaded",
	FlushClocks: "clocks before a flush", FlushAgain: "FLUSH's further rounds", FlushMajority: "a majority notes a flush",
	FlushOwners: "holders note a flush", FloorAtHandoff: "a flush's version at what is handed over",
	FloorsInReset: "flushes in RESET", FloorsInLog: "flushes in logs", FloorsInHello: "flushes in greetings", FloorsInAcquire: "flushes in answers to ACQUIRE",
	FloorsInAuth: "flushes in answers to AUTH",
	Stutter:      "gaps add up", Answered: "gaps add up only where polls go unanswered", GapLocked: "a gap is judged under the lock",
	RunningTime: "silence counts while the process runs",
	ForgetDead:  "only the dead are forgotten",
	Overdue:     "no late write is stored", OverdueOrigin: "no late write at an origin",
	NoSlot: "note of a DELETE without a slot", TouchEvent: "version of a TOUCH's event", Unknown: "note of a write of unknown outcome",
	Settle: "late writes through are told of", Overtaken: "an overtaken write through is not stored",
	EndFromAsked: "end counted from the question", JoinEnded: "no joining of what has ended", JoinOwnership: "loads joined in their holding",
	SourceOfEntry: "source of what is handed over",
	Acquaintance:  "known processes alone count", RefusedName: "a refused name is its member's",
	Namesake: "who goes on counts again", Hint: "gossip's word of a state is a hint",
	Hearsay: "gossip's word that a host is out is not told on",
	Vouch:   "hosts tell of whom they hear", NamedInAnswer: "who is named as in is known", HigherBallot: "a higher ballot ends a holding",
}

func (g Guard) String() string { return names[g] }
