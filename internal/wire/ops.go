package wire

import (
	"fmt"
	"strings"
)

// Op is the operation of a request.
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
	OpDrain
	OpReload
	OpKeys
	OpHot
	OpSlow
	OpLeaving
	OpShared
	OpHits
	OpMetaGet
	opsOfApps // one above the highest op of apps
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
	OpSettings

	// OpCount is one above the highest op.
	OpCount
)

// Need is what a caller must be entitled to for a request. What right that takes is said in package access.
type Need uint8

const (
	NeedUnsaid     Need = iota // such an op is refused to all callers
	NeedNone                   // all callers that can open the socket
	NeedRead                   // in the request's namespace
	NeedWrite                  // in the request's namespace
	NeedFlush                  // in the request's namespace
	NeedReadAny                // in at least one namespace
	NeedInspect                // in the request's namespace: keys may be secrets
	NeedInspectAny             // in at least one namespace
	NeedRule                   // the sidecar as a whole
)

// is is a set of bits: what an op is.
type is uint16

const (
	reads    is = 1 << iota // see Op.Reads
	anywhere                // see Op.Lookup
	oneKey                  // its subject is Key
	manyKeys                // its subject is Keys
	writes                  // see Request.Writes
	writesIf                // with one of the row's options `with`
	watched                 // see Op.Watched
	again                   // see Op.Repeatable
	local                   // see Op.OfApps
	feature                 // see Features
)

// row is what is known of an op. Whoever asks something about ops in general asks this table: a new op is a row, its
// two codecs in request.go and reply.go, and its handler.
type row struct {
	name    string
	options Options // that it takes
	is      is
	need    Need
	with    Options // a request with one of these
	then    Need    // needs this instead
}

// ops is the table. Ops between sidecars need nothing: the sidecar that took the request from an app has decided.
var ops = [OpCount]row{
	OpHello: {name: "HELLO", is: local, need: NeedNone},
	OpPing:  {name: "PING", is: again, need: NeedNone},
	OpGet: {name: "GET", is: reads | anywhere | oneKey | watched | again, need: NeedRead,
		options: Fresh | NoLoad | StaleOK | Attest | Share},
	OpMGet: {name: "MGET", is: reads | anywhere | manyKeys | watched | again, need: NeedRead,
		options: Fresh | NoLoad | StaleOK | Attest | Share},
	OpSet: {name: "SET", is: writes | oneKey | watched, need: NeedWrite, options: AckAll | Create | StaleOK},
	OpDelete: {name: "DELETE", is: writes | manyKeys | watched, need: NeedWrite,
		options: AckAll | Soft | LateWrite | CacheOnly},
	OpTouch: {name: "TOUCH", is: writes | oneKey | watched, need: NeedWrite, options: AckAll},
	OpIncr: {name: "INCR", is: writes | oneKey | watched, need: NeedWrite,
		options: AckAll | Unsigned | Down | Retouch},
	OpLease: {name: "LEASE", is: reads | anywhere | oneKey | watched | again, need: NeedWrite,
		options: Fresh | StaleOK | Attest},
	OpFill: {name: "FILL", is: writes | oneKey | watched, need: NeedWrite, options: Abandon},
	OpFlush: {name: "FLUSH", is: watched, need: NeedFlush, options: Cluster | All,
		with: All, then: NeedRule},
	OpStats: {name: "STATS", is: again, need: NeedNone, options: Cluster,
		with: Cluster, then: NeedRule},
	OpMembers: {name: "MEMBERS", is: again, need: NeedNone},
	OpRing:    {name: "RING", is: again, need: NeedNone},
	OpWatch: {name: "WATCH", is: local, need: NeedRead, options: All,
		with: All, then: NeedReadAny},
	OpVerify:  {name: "VERIFY", need: NeedRule},
	OpForget:  {name: "FORGET", need: NeedRule},
	OpDrain:   {name: "DRAIN", is: local, need: NeedRule, options: Undo | Force | End},
	OpReload:  {name: "RELOAD", is: local, need: NeedRule},
	OpKeys:    {name: "KEYS", is: local, need: NeedInspect},
	OpHot:     {name: "HOT", is: local, need: NeedInspect, options: All, with: All, then: NeedInspectAny},
	OpSlow:    {name: "SLOW", is: local, need: NeedInspect, options: All, with: All, then: NeedInspectAny},
	OpLeaving: {name: "LEAVING", is: local, need: NeedNone},
	OpShared:  {name: "SHARED", is: local | feature, need: NeedReadAny},
	OpHits:    {name: "HITS", is: local, need: NeedRead, options: Quiet},
	OpMetaGet: {name: "METAGET", is: reads | writesIf | oneKey | watched, need: NeedRead,
		options: NoLoad | Touch | Unread | NoValue | Claim | Create | CacheOnly,
		with:    Touch | Claim, then: NeedWrite},

	OpPeerHello: {name: "PEER_HELLO"}, OpPoll: {name: "POLL"}, OpAcquire: {name: "ACQUIRE"}, OpPull: {name: "PULL"},
	OpFetch: {name: "FETCH"}, OpGoodbye: {name: "GOODBYE"}, OpFollow: {name: "FOLLOW"}, OpAuth: {name: "AUTH"},
	OpProbe: {name: "PROBE"}, OpNote: {name: "NOTE"}, OpApplied: {name: "APPLIED"}, OpSettings: {name: "SETTINGS"},
}

func (o Op) String() string {
	if o.Known() {
		return ops[o].name
	}
	return fmt.Sprintf("op %d", uint8(o))
}

// Known reports whether the op exists.
func (o Op) Known() bool { return o < OpCount && ops[o].name != "" }

// Peer reports whether the op is used only between sidecars.
func (o Op) Peer() bool { return o >= OpPeerHello }

// OfApps reports whether no sidecar asks another one for the op: its caller needs rights, or it concerns an app's
// connection.
func (o Op) OfApps() bool { return ops[o].is&local != 0 }

// Lookup reports whether the op asks for values wherever they are: in a copy, at their owner, at the origin.
func (o Op) Lookup() bool { return ops[o].is&anywhere != 0 }

// Reads reports whether an answer to the op has values: those of a lookup, or what the owner has stored.
func (o Op) Reads() bool { return ops[o].is&reads != 0 }

// Watched reports whether the op is to be fast: an operator asks which requests of it were not.
func (o Op) Watched() bool { return ops[o].is&watched != 0 }

// Repeatable reports whether a client may send the op again if it does not know whether it was executed.
func (o Op) Repeatable() bool { return ops[o].is&again != 0 }

// Features lists the ops that not every sidecar of this version of the protocol serves, as HELLO names them: those
// that a machine may lack, and those that were added to the version.
var Features = features()

func features() (names []string) {
	for o := OpHello; o < opsOfApps; o++ {
		if ops[o].is&feature != 0 {
			names = append(names, o.feature())
		}
	}
	return names
}

// feature returns the name of an op in Features.
func (o Op) feature() string { return strings.ToLower(o.String()) }
