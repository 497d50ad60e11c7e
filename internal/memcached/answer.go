package memcached

import (
	"strconv"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// append appends the answer to a request, and counts it.
func (f *form) append(dst []byte, n *tally, q *wire.Request, r *wire.Reply) []byte {
	n.note(f, q, r)
	return appendAnswer(dst, f, q, r)
}

// itemOf returns what a reply says about a key.
func itemOf(r *wire.Reply) Item {
	return Item{
		Value: r.Value, Size: len(r.Value), Flags: r.Flags, Version: r.Version, TTLMS: r.TTLMS,
	}
}

// appendAnswer appends the answer to a command, or the part of it that a request brings.
func appendAnswer(dst []byte, f *form, q *wire.Request, r *wire.Reply) []byte {
	switch {
	case f.verb == Invalid: // the request has dropped a value, or there was none
		return f.AppendLine(dst, f.err)
	case r.Status.IsError() && !f.part:
		return appendError(dst, f, r)
	}
	switch f.verb {
	case Get, Gets, Gat, Gats:
		return appendGet(dst, f, q, r)
	case MetaGet:
		return appendMetaGet(dst, f, q, r)
	case MetaDebug:
		if r.Status != wire.OK && r.Status != wire.Stale {
			return append(dst, "EN\r\n"...)
		}
		item := metaItem(r)
		return f.AppendDebug(dst, &item)
	case Delete, MetaDelete:
		return appendDelete(dst, f, &r.Items[0])
	case Incr, Decr:
		return appendNumber(dst, f, r)
	case MetaArithmetic:
		return appendMetaNumber(dst, f, r)
	case Touch:
		if len(r.Items) == 1 {
			r = &r.Items[0]
		}
		return line(dst, f, r, "TOUCHED", "NOT_FOUND")
	case FlushAll:
		return f.AppendLine(dst, "OK")
	}
	return appendStored(dst, f, q, r)
}

// line appends one of two lines, or an error.
func line(dst []byte, f *form, r *wire.Reply, ok, miss string) []byte {
	switch {
	case r.Status.IsError():
		return appendError(dst, f, r)
	case r.Status == wire.OK:
		return f.AppendLine(dst, ok)
	}
	return f.AppendLine(dst, miss)
}

// appendError appends an error as memcached says it.
func appendError(dst []byte, f *form, r *wire.Reply) []byte {
	switch r.Status {
	case wire.BadRequest, wire.Unauthorized, wire.Unsupported:
		return f.AppendError(dst, "CLIENT_ERROR", r.Message)
	case wire.TooLarge:
		return f.AppendLine(dst, TooLarge)
	}
	return f.AppendError(dst, "SERVER_ERROR "+r.Status.String()+":", r.Message)
}

// appendGet appends the values of a get. A key that cannot be read beside others is a miss.
func appendGet(dst []byte, f *form, q *wire.Request, r *wire.Reply) []byte {
	switch {
	case q.Op == wire.OpMGet:
		for i := range r.Items {
			if item := itemOf(&r.Items[i]); r.Items[i].Status == wire.OK {
				dst = f.AppendItem(dst, f.prefix, q.Keys[i], &item)
			}
		}
	case r.Status == wire.OK:
		item := itemOf(r)
		dst = f.AppendItem(dst, nil, f.written, &item)
	}
	if f.more {
		return dst
	}
	return append(dst, End...)
}

// metaItem returns what the reply to a METAGET says.
func metaItem(r *wire.Reply) Item {
	item := itemOf(r)
	item.Size = int(r.Size)
	item.Read, item.SinceWrite = r.Read, int64(r.IdleMS/1000)
	item.Stale = r.Status == wire.Stale
	switch r.Claim {
	case wire.ClaimWon:
		item.Won, item.Version = true, uint64(r.Number)
	case wire.ClaimTaken:
		item.Taken, item.Version = true, uint64(r.Number)
	}
	return item
}

// appendMetaGet appends the answer to mg. A key that is not there and that a client is to
// load looks like an empty value, as in memcached.
func appendMetaGet(dst []byte, f *form, q *wire.Request, r *wire.Reply) []byte {
	item := itemOf(r)
	item.Stale = r.Status == wire.Stale
	switch {
	case r.Status == wire.Miss && r.Claim == wire.ClaimNone:
		return f.AppendMiss(dst)
	case q.Op == wire.OpMetaGet:
		item = metaItem(r)
	}
	return f.AppendItem(dst, nil, nil, &item)
}

func appendDelete(dst []byte, f *form, r *wire.Reply) []byte {
	if f.verb == Delete {
		return line(dst, f, r, "DELETED", "NOT_FOUND")
	}
	return code(dst, f, r, nil)
}

// code appends the answer to a meta command that brings no value.
func code(dst []byte, f *form, r *wire.Reply, item *Item) []byte {
	switch {
	case r.Status.IsError():
		return appendError(dst, f, r)
	case r.Status == wire.OK && f.quiet:
		return dst
	case r.Status == wire.OK:
		return f.AppendCode(dst, "HD", item)
	case r.Status == wire.Exists:
		return f.AppendCode(dst, "EX", item)
	case r.Status == wire.NotStored:
		return f.AppendCode(dst, "NS", item)
	}
	return f.AppendCode(dst, "NF", item)
}

const notNumber = "CLIENT_ERROR cannot increment or decrement non-numeric value"

func appendNumber(dst []byte, f *form, r *wire.Reply) []byte {
	switch r.Status {
	case wire.OK:
		if f.quiet {
			return dst
		}
		return append(strconv.AppendUint(dst, uint64(r.Number), 10), "\r\n"...)
	case wire.NotStored:
		return f.AppendLine(dst, notNumber)
	}
	return f.AppendLine(dst, "NOT_FOUND")
}

func appendMetaNumber(dst []byte, f *form, r *wire.Reply) []byte {
	switch r.Status {
	case wire.OK:
		if f.quiet {
			return dst
		}
		var digits [20]byte
		item := itemOf(r)
		item.Value = strconv.AppendUint(digits[:0], uint64(r.Number), 10)
		item.Size = len(item.Value)
		return f.AppendItem(dst, nil, nil, &item)
	case wire.NotStored:
		return append(append(dst, notNumber...), "\r\n"...)
	}
	return code(dst, f, r, nil)
}

// appendStored appends the answer to a command that brings a value.
func appendStored(dst []byte, f *form, q *wire.Request, r *wire.Reply) []byte {
	status := r.Status
	item := Item{Version: r.Version}
	if len(r.Items) == 1 { // a deletion in the place of a value that was over at once
		r = &r.Items[0]
		status = r.Status
	}
	switch {
	case r.Status.IsError():
		return appendError(dst, f, r)
	case f.expired && f.mode == Set:
		status = wire.OK
	case f.expired && f.mode == Add && status == wire.Miss:
		status = wire.OK
	case f.expired && f.mode == Add:
		status = wire.NotStored
	case status == wire.Stale && f.invalidate:
		// The value is older than what has made the present one stale. It is not kept: the
		// next client reads the stale one.
		status = wire.OK
	case status == wire.Stale:
		status = wire.Exists
	case status == wire.Exists && f.mode == Add,
		status == wire.Miss && f.mode != CAS:
		status = wire.NotStored
	}
	if status != wire.OK {
		item.Version = 0
	}
	if f.verb == MetaSet {
		one := wire.Reply{Status: status}
		return code(dst, f, &one, &item)
	}
	switch status {
	case wire.OK:
		return f.AppendLine(dst, "STORED")
	case wire.Exists:
		return f.AppendLine(dst, "EXISTS")
	case wire.NotStored:
		return f.AppendLine(dst, "NOT_STORED")
	}
	return f.AppendLine(dst, "NOT_FOUND")
}

// metaGet turns the GET of an mg into a METAGET. With claims it may claim the right to load
// the value.
func metaGet(q *wire.Request, f *form, claims bool) {
	q.Op, q.Options = wire.OpMetaGet, 0
	if !f.withValue {
		q.Options = wire.NoValue
	}
	if claims {
		q.Options |= wire.Claim
		if f.vivify {
			q.Options |= wire.Create
		}
	}
}

// renews says whether a reply to the GET of an mg has a value that ends so soon that the
// client wants to load it anew.
func renews(q *wire.Request, r *wire.Reply) bool {
	return q.RenewMS > 0 && r.Status == wire.OK && r.TTLMS > 0 && r.TTLMS < int64(q.RenewMS)
}

// turns says whether the reply to the GET of an mg does not answer it: then the request has
// become the METAGET that does.
func turns(f *form, q *wire.Request, r *wire.Reply) bool {
	if f.verb != MetaGet || q.Op != wire.OpGet {
		return false
	}
	missed := r.Status == wire.Miss && r.Why == wire.NotCached && f.vivify
	if r.Status != wire.Stale && !missed && !renews(q, r) {
		return false
	}
	metaGet(q, f, f.claims)
	return true
}
