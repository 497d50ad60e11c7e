package wire

import (
	"fmt"
	"slices"
)

// Version is the newest protocol version that this package implements.
const Version = 1

// Versions lists the protocol versions of clients that a sidecar serves, the newest first.
var Versions = []int{Version}

// Common returns the newest of Versions that a client speaks too. It returns false if there
// is none.
func Common(theirs []int) (int, bool) {
	for _, v := range Versions {
		if slices.Contains(theirs, v) {
			return v, true
		}
	}
	return 0, false
}

// Status is the outcome of a request. Statuses of 16 and above are errors.
type Status uint8

const (
	OK        Status = 0
	Miss      Status = 1
	Lease     Status = 2
	Stale     Status = 3
	Exists    Status = 4
	NotStored Status = 5

	BadRequest   Status = 16
	TooLarge     Status = 17
	Unauthorized Status = 18
	Moved        Status = 19 // between sidecars only
	Unavailable  Status = 20
	Timeout      Status = 21
	Busy         Status = 22
	Origin       Status = 23
	Unsupported  Status = 24
	Internal     Status = 25

	// StatusCount is one above the highest status.
	StatusCount = 26
)

var statusNames = [StatusCount]string{
	OK: "OK", Miss: "MISS", Lease: "LEASE", Stale: "STALE", Exists: "EXISTS", NotStored: "NOT_STORED",
	BadRequest: "BAD_REQUEST", TooLarge: "TOO_LARGE", Unauthorized: "UNAUTHORIZED", Moved: "MOVED",
	Unavailable: "UNAVAILABLE", Timeout: "TIMEOUT", Busy: "BUSY", Origin: "ORIGIN",
	Unsupported: "UNSUPPORTED", Internal: "INTERNAL",
}

func (status Status) String() string {
	if int(status) < len(statusNames) && statusNames[status] != "" {
		return statusNames[status]
	}
	return fmt.Sprintf("status %d", uint8(status))
}

// IsError reports whether the answer has a message instead of a result.
func (status Status) IsError() bool { return status >= BadRequest }

// Error is an error that is sent to the client: a status, and a message that tells the
// reader what to do.
type Error struct {
	Status  Status
	Message string
}

func (err *Error) Error() string { return err.Status.String() + ": " + err.Message }

// Errorf returns an Error with a formatted message.
func Errorf(s Status, format string, args ...any) *Error {
	return &Error{s, fmt.Sprintf(format, args...)}
}

// Options is a set of bits, the options of a request.
type Options uint32

const (
	Fresh   Options = 1 << iota // the owner answers, not a copy
	NoLoad                      // do not load from the origin on a miss
	StaleOK                     // a stale value, marked as stale, is better than none
	AckAll                      // answer only after no host can serve the old value
	Soft                        // keep the deleted value as a stale one
	Cluster                     // the whole cluster, not only this host
	All                         // all namespaces
	Attest                      // add the attesting owner and its time to the answer
	Abandon                     // give the token back; there is no value to fill with
	// Between sidecars: drop a key that a late write-through may have changed; do not
	// write to the origin.
	LateWrite
	Undo  // DRAIN: take it back
	Force // DRAIN: also if no other host takes over
	End   // DRAIN: then end the process
	Share // the client reads the shared memory: put the value there if it is asked for often

	// SET with ModeAppend or ModePrepend: store the value if the key is absent; METAGET with
	// Claim: claim an absent key too.
	Create
	Unsigned // INCR: of unsigned 64-bit numbers; the sum wraps
	Down     // INCR, with Unsigned: subtract; the result stops at zero
	Retouch  // INCR: a present value gets the TTL too
	Touch    // METAGET: the TTL of the request, if it has one, becomes that of the value
	Unread   // METAGET: this is no read of the value
	NoValue  // METAGET: without the value
	Claim    // METAGET: the right to load the value is wanted; see ClaimState
	// DELETE: remove the values from the cache alone, as their expiry would. The origin of a
	// namespace that writes through is not changed. METAGET with Touch: the value's time is over,
	// and the value is removed from the cache in the same step.
	CacheOnly
	Quiet // HITS: no answer, unless the request is refused
)

// Mode is the condition under which a SET stores.
type Mode uint8

const (
	ModeSet     Mode = iota // always
	ModeAdd                 // if absent
	ModeReplace             // if present
	ModeCAS                 // if present with the version in compare
	ModeAppend              // behind the present value
	ModePrepend             // before the present value

	modeCount
)

// IsConcat reports whether the mode adds to the present value.
func (m Mode) IsConcat() bool { return m == ModeAppend || m == ModePrepend }

// ClaimState says who has the right to load a value, in an answer to METAGET.
type ClaimState uint8

const (
	ClaimNone  ClaimState = 0 // nobody needs it, or it was not asked for
	ClaimWon   ClaimState = 1 // the caller; Reply.Number names the claim
	ClaimTaken ClaimState = 2 // another caller, whose claim Reply.Number names
)

// Source is the place that a value came from.
type Source uint8

const (
	SourceL1     Source = 1 // a copy on this host
	SourceL2     Source = 2 // a partition that this host owns
	SourcePeer   Source = 3 // the host that owns the key
	SourceOrigin Source = 4
)

var sourceNames = [...]string{"", "l1", "l2", "peer", "origin"}

func (source Source) String() string {
	if int(source) < len(sourceNames) {
		return sourceNames[source]
	}
	return fmt.Sprintf("source %d", uint8(source))
}

// Why is the reason of a miss.
type Why uint8

const (
	NotCached Why = 0
	Absent    Why = 1 // the origin has no such key
	Degraded  Why = 2 // the owner cannot be reached
)

var whyNames = [...]string{"not_cached", "absent", "degraded"}

func (w Why) String() string {
	if int(w) < len(whyNames) {
		return whyNames[w]
	}
	return fmt.Sprintf("why %d", uint8(w))
}

// Limits of the protocol. No configuration changes them.
const (
	MaxKeys       = 1024                   // keys of one MGET or DELETE
	MaxHits       = 1 << 30                // reads of one kind in one HITS
	MaxTTL        = 365 * 24 * 3600 * 1000 // ms
	MaxTimeout    = 3600 * 1000            // ms
	FrameSlack    = 64 << 10               // bytes of a request beyond its value
	MaxMGetAnswer = 16 << 20               // bytes; the keys after that are answered BUSY
	MaxNameLen    = 256                    // bytes of a client's name or token
)
