package wire

import "fmt"

// Version is the protocol version that this package speaks.
const Version = 1

// Op says what a request asks for.
type Op uint8

const (
	OpHello Op = iota + 1
	OpPing
	OpGet
	OpMGet
	OpSet
	OpDelete
	OpTouch
	OpIncr
	OpLease
	OpFill
	OpFlush
	OpStats
	OpMembers
	OpRing
	OpWatch
	OpVerify
	OpForget

	// lastClientOp is the highest that apps may send.
	lastClientOp = OpForget
)

// Ops between sidecars. Their bodies are structured; see peer.go.
const (
	OpPeerHello Op = iota + 32
	OpPoll
	OpAcquire
	OpPull
	OpFetch
	OpGoodbye
	OpFollow
	OpAuth
	OpProbe
	OpNote
	OpApplied

	// OpCount is one above the highest op.
	OpCount
)

var opNames = [OpCount]string{
	OpHello: "HELLO", OpPing: "PING", OpGet: "GET", OpMGet: "MGET", OpSet: "SET", OpDelete: "DELETE",
	OpTouch: "TOUCH", OpIncr: "INCR", OpLease: "LEASE", OpFill: "FILL", OpFlush: "FLUSH", OpStats: "STATS",
	OpMembers: "MEMBERS", OpRing: "RING", OpWatch: "WATCH", OpVerify: "VERIFY", OpForget: "FORGET",
	OpPeerHello: "PEER_HELLO", OpPoll: "POLL", OpAcquire: "ACQUIRE", OpPull: "PULL", OpFetch: "FETCH", OpGoodbye: "GOODBYE", OpFollow: "FOLLOW", OpAuth: "AUTH", OpProbe: "PROBE", OpNote: "NOTE", OpApplied: "APPLIED",
}

func (o Op) String() string {
	if o.Known() {
		return opNames[o]
	}
	return fmt.Sprintf("op %d", uint8(o))
}

// Known says whether there is such an op.
func (o Op) Known() bool { return o < OpCount && opNames[o] != "" }

// Peer says whether the op is one between sidecars alone.
func (o Op) Peer() bool { return o >= OpPeerHello }

// Status says how a request ended. From 16 on it is an error.
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

func (s Status) String() string {
	if int(s) < len(statusNames) && statusNames[s] != "" {
		return statusNames[s]
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// IsError says whether the status stands with a message instead of a result.
func (s Status) IsError() bool { return s >= BadRequest }

// Error is an error that travels: a status and a message that says what to do.
type Error struct {
	Status  Status
	Message string
}

func (e *Error) Error() string { return e.Status.String() + ": " + e.Message }

// Errorf returns an Error.
func Errorf(s Status, format string, args ...any) *Error {
	return &Error{s, fmt.Sprintf(format, args...)}
}

// Options of a request, a set of bits.
type Options uint32

const (
	Fresh   Options = 1 << iota // answered by the holder, from no copy
	NoLoad                      // do not ask the origin on a miss
	StaleOK                     // a stale value, marked so, is better than none
	AckAll                      // wait until no host can serve the old value
	Soft                        // keep the deleted value as a stale one
	Cluster                     // this whole cluster, not this host alone
	All                         // all namespaces
	Attest                       // say in the answer who vouches for the value, and as of when
	Abandon                     // give the token back: there is nothing to fill with
	Settle                      // between sidecars: drop what the origin may have changed, and leave that alone
)

// allowed lists each op's options.
var allowed = [OpCount]Options{
	OpGet: Fresh | NoLoad | StaleOK | Attest, OpMGet: Fresh | NoLoad | StaleOK | Attest, OpSet: AckAll,
	OpDelete: AckAll | Soft | Settle, OpTouch: AckAll, OpIncr: AckAll, OpLease: Fresh | StaleOK | Attest, OpFill: Abandon,
	OpFlush: Cluster | All, OpStats: Cluster, OpWatch: All,
}

// Mode says on which condition a SET stores.
type Mode uint8

const (
	ModeSet     Mode = iota // always
	ModeAdd                 // if absent
	ModeReplace             // if present
	ModeCAS                 // if present with the version that compare names

	modeCount
)

// Source says where a value came from.
type Source uint8

const (
	SourceL1     Source = 1 // this host's hot copy
	SourceL2     Source = 2 // this host's own partition
	SourcePeer   Source = 3 // the host that owns the key
	SourceOrigin Source = 4
)

var sourceNames = [...]string{"", "l1", "l2", "peer", "origin"}

func (s Source) String() string {
	if int(s) < len(sourceNames) {
		return sourceNames[s]
	}
	return fmt.Sprintf("source %d", uint8(s))
}

// Why says why a GET missed.
type Why uint8

const (
	NotCached Why = 0
	Absent    Why = 1 // the origin says that there is none
	Degraded  Why = 2 // the owner cannot be reached
)

var whyNames = [...]string{"not_cached", "absent", "degraded"}

func (w Why) String() string {
	if int(w) < len(whyNames) {
		return whyNames[w]
	}
	return fmt.Sprintf("why %d", uint8(w))
}

// Limits of the protocol that no configuration moves.
const (
	MaxKeys       = 1024                   // of MGET and DELETE
	MaxTTL        = 365 * 24 * 3600 * 1000 // ms
	MaxTimeout    = 3600 * 1000            // ms
	FrameSlack    = 64 << 10               // bytes that a request may have beyond its value
	MaxMGetAnswer = 16 << 20               // bytes, after which keys are answered BUSY
	MaxNameLen    = 256                    // bytes of a client's name or token
)

// ErrorReply returns the answer that says e.
func ErrorReply(e *Error) Reply { return Reply{Status: e.Status, Message: []byte(e.Message)} }

// BodyReply returns an answer with a body.
func BodyReply(v any) Reply {
	b, err := MarshalBody(v)
	if err != nil {
		return ErrorReply(Errorf(Internal, "%v", err))
	}
	return Reply{Body: b}
}
