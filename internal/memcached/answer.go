package memcached

import (
	"strconv"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// append appends the answer to a command, or the part of it that a request brings, and counts it. It may
// change the reply.
func (f *form) append(dst []byte, n *tally, q *wire.Request, r *wire.Reply) []byte {
	if q.Op == wire.OpDelete && len(r.Items) == 1 {
		r = &r.Items[0]
	}
	n.noteRequest(f, q, r)
	switch {
	case f.verb == verbFixed: // the request has dropped a value, or there was none
		return f.appendLine(dst, f.line)
	case r.Status.IsError() && !f.part:
		return f.appendFailure(dst, r)
	}
	switch f.verb {
	case verbGet, verbGets, verbGat, verbGats:
		return f.appendGet(dst, q, r)
	case verbMetaGet:
		return f.appendMetaGet(dst, q, r)
	case verbMetaDebug:
		if r.Status != wire.OK && r.Status != wire.Stale {
			return append(dst, "EN\r\n"...)
		}
		return f.appendDebug(dst, r)
	case verbIncr, verbMetaArithmetic:
		return f.appendNumber(dst, r)
	case verbStore, verbMetaSet:
		f.conclude(r)
	}
	return f.appendOutcome(dst, r)
}

// appendFailure appends an error.
func (f *form) appendFailure(dst []byte, r *wire.Reply) []byte {
	switch r.Status {
	case wire.BadRequest, wire.Unauthorized, wire.Unsupported:
		return f.appendError(dst, "CLIENT_ERROR", r.Message)
	case wire.TooLarge:
		return f.appendLine(dst, tooLarge)
	}
	return f.appendError(dst, "SERVER_ERROR "+r.Status.String()+":", r.Message)
}

// appendGet appends the values of a get. A key that cannot be read beside others is a miss.
func (f *form) appendGet(dst []byte, q *wire.Request, r *wire.Reply) []byte {
	if r.Status == wire.OK && q.Op != wire.OpMGet {
		dst = f.appendItem(dst, nil, f.written, r.Value, r)
	}
	for i := range r.Items {
		if item := &r.Items[i]; item.Status == wire.OK {
			dst = f.appendItem(dst, f.prefix, q.Keys[i], item.Value, item)
		}
	}
	if f.more {
		return dst
	}
	return append(dst, end...)
}

// appendMetaGet appends the answer to mg. A key that is not there and that a client is to
// load looks like an empty value, as in memcached.
func (f *form) appendMetaGet(dst []byte, q *wire.Request, r *wire.Reply) []byte {
	if r.Status == wire.Miss && r.Claim == wire.ClaimNone {
		if f.quiet {
			return dst
		}
		return f.appendCode(dst, "EN", r)
	}
	if q.Op == wire.OpGet {
		r.Size = uint64(len(r.Value))
	}
	return f.appendItem(dst, nil, nil, r.Value, r)
}

// appendNumber appends the answer to incr, decr and ma.
func (f *form) appendNumber(dst []byte, r *wire.Reply) []byte {
	switch {
	case r.Status == wire.NotStored:
		return f.appendError(dst, "CLIENT_ERROR", []byte("cannot increment or decrement non-numeric value"))
	case r.Status != wire.OK || f.quiet:
		return f.appendOutcome(dst, r)
	}
	var b [20]byte
	digits := strconv.AppendUint(b[:0], uint64(r.Number), 10)
	if f.isMeta() {
		return f.appendItem(dst, nil, nil, digits, r)
	}
	return append(append(dst, digits...), crlf...)
}

// conclude makes the status of a reply what the command that brings a value is told.
func (f *form) conclude(r *wire.Reply) {
	switch {
	case f.expired && f.mode == wire.ModeSet, f.expired && f.mode == wire.ModeAdd && r.Status == wire.Miss:
		r.Status = wire.OK
	case f.expired && f.mode == wire.ModeAdd:
		r.Status = wire.NotStored
	case r.Status == wire.Stale && f.invalidate:
		// The value is older than what has made the present one stale. It is not kept: the
		// next client reads the stale one.
		r.Status = wire.OK
	case r.Status == wire.Stale:
		r.Status = wire.Exists
	case r.Status == wire.Exists && f.mode == wire.ModeAdd, r.Status == wire.Miss && f.mode != wire.ModeCAS:
		r.Status = wire.NotStored
	}
	if r.Status != wire.OK || f.expired {
		r.Version = 0
	}
}

// appendOutcome appends the answer to a command that is not told a value.
func (f *form) appendOutcome(dst []byte, r *wire.Reply) []byte {
	line, code := "NOT_FOUND", "NF"
	switch r.Status {
	case wire.OK:
		line, code = done[f.verb], "HD"
	case wire.Exists:
		line, code = "EXISTS", "EX"
	case wire.NotStored:
		line, code = "NOT_STORED", "NS"
	}
	switch {
	case !f.isMeta():
		return f.appendLine(dst, line)
	case f.quiet && r.Status == wire.OK:
		return dst
	}
	return f.appendCode(dst, code, r)
}

// done is what says that a command was done.
var done = [verbs]string{verbStore: "STORED", verbDelete: "DELETED", verbTouch: "TOUCHED", verbFlushAll: "OK"}

// renews says whether the reply to the GET of an mg does not answer it: the client may claim the right to
// load the value, by a METAGET.
func (f *form) renews(q *wire.Request, r *wire.Reply) bool {
	if f.verb != verbMetaGet || q.Op != wire.OpGet {
		return false
	}
	switch r.Status {
	case wire.Stale:
		return true
	case wire.Miss:
		return f.vivify && r.Why == wire.NotCached
	}
	return r.Status == wire.OK && r.TTLMS > 0 && r.TTLMS < int64(q.RenewMS)
}
