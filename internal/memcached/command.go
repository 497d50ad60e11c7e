package memcached

import (
	"bytes"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Verb is the name of a command.
type verb uint8

// verbFixed is a line whose answer is known without a look at anything: form.line. So is that of any line that
// is no valid command.
const (
	verbFixed verb = iota
	verbGet
	verbGets
	verbGat
	verbGats
	verbStore // set, add, replace, append, prepend and cas: see form.mode
	verbDelete
	verbIncr // and decr
	verbTouch
	verbFlushAll
	verbStats
	verbQuit
	verbMetaGet
	verbMetaSet
	verbMetaDelete
	verbMetaArithmetic
	verbMetaDebug
	verbs
)

// maxKeyLen is the length of the longest key, in bytes as the client writes it.
const maxKeyLen = 250

// command is one command. parse fills it.
type command struct {
	fields
	decoded [maxKeyLen]byte // the array of a decoded key
}

// fields are what a command says. Those that its verb does not use are zero.
type fields struct {
	form
	unknown bool // the line begins with no command of memcached, of those included that are not served

	key     []byte // the first one; decoded, if the client has sent it as base64
	rest    []byte // of get, gets, gat and gats: the further keys, see nextKey; of stats: the first argument
	value   []byte
	flags   uint32
	exptime int64 // as the client has sent it, or the delay of flush_all: see ttlOf
	cas     uint64
	delta   uint64
	initial uint64

	// What the flags of a meta command say beside its values.
	setsTTL bool // T: exptime is set
	hasCAS  bool // C
	unread  bool // u
	inspect bool // h or l: the answer tells of earlier reads
	down    bool // of decr and ma

	vivifyTime, recacheTime int64 // N, R

	modeToken byte // of M; zero: none
}

// readsOne says whether the command reads one key, and changes nothing before its value is missed.
func (c *command) readsOne() bool {
	switch c.verb {
	case verbGet, verbGets:
		return c.key != nil && len(c.rest) == 0
	case verbMetaGet:
		return !c.setsTTL && !c.inspect && !c.unread
	}
	return false
}

// form is how the answer to a command looks, or a part of it that a request brings. It outlives the
// command's bytes in a copy (see clone).
type form struct {
	verb      verb
	line      string // the answer to verbFixed
	quiet     bool   // noreply, or the flag q
	withValue bool   // of a meta command: the answer has the value
	base64    bool
	written   []byte         // the key, as the client has written it; for an answer with several keys nil
	opaque    []byte         // with its flag O in front; nil: none
	repeated  [maxFlags]byte // flags, in their order
	nRepeated uint8

	vivify     bool      // of mg and ma, N: VivifyTime is set, and a missing key is claimed or made
	invalidate bool      // of ms and md: the flag I
	mode       wire.Mode // of a command that brings a value
	expired    bool      // the value was over before it was stored

	prefix []byte // of the keys of an MGET
	part   bool   // one of several requests of a get
	more   bool   // and not the last one
}

// maxFlags bounds the flags of a meta command.
const maxFlags = 17

// clone returns a copy whose bytes are its own.
func (f *form) clone() *form {
	n := *f
	n.written, n.opaque, n.prefix = bytes.Clone(f.written), bytes.Clone(f.opaque), bytes.Clone(f.prefix)
	return &n
}

// month is the longest exptime that counts from now, in seconds; a longer one is a Unix time.
const month = 30 * 24 * 3600

// ttlOf returns how long an exptime lets a value live, in milliseconds, at most wire.MaxTTL; zero is no
// expiry. over says that the time is over already. now is the Unix time in milliseconds. Of exptime the
// low 32 bits count, as they do for memcached: a client may send -1 as 4294967295.
func ttlOf(exptime, now int64) (ms int64, over bool) {
	if exptime = int64(int32(exptime)); exptime == 0 {
		return 0, false
	}
	ms = exptime * 1000
	if exptime > month {
		ms -= now
	}
	return min(max(ms, 0), wire.MaxTTL), ms <= 0
}
