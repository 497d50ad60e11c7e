package session

import (
	"strconv"

	"github.com/cachesidecar/cachesidecar/internal/memcached"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// appendReply appends the answer to a request in the protocol of its connection. form is that
// of a command of memcached, which tally counts; nil: the socket's protocol.
func appendReply(dst []byte, form *textForm, tally *textTally, q *wire.Request, r *wire.Reply) []byte {
	if form == nil {
		return wire.AppendReply(dst, q.Op, r)
	}
	if form.Verb == memcached.Bad {
		return dst // see Text.drop
	}
	tally.note(form, q, r)
	return appendText(dst, form, q, r)
}

// itemOf returns what a reply says about a key.
func itemOf(r *wire.Reply) memcached.Item {
	return memcached.Item{
		Value: r.Value, Size: len(r.Value), Flags: r.Flags, Version: r.Version, TTLMS: r.TTLMS,
	}
}

// appendText appends the answer to a command, or the part of it that a request brings.
func appendText(dst []byte, form *textForm, q *wire.Request, r *wire.Reply) []byte {
	if r.Status.IsError() && !form.part {
		return appendTextError(dst, form, r)
	}
	switch form.Verb {
	case memcached.Get, memcached.Gets, memcached.Gat, memcached.Gats:
		return appendGet(dst, form, q, r)
	case memcached.MetaGet:
		return appendMetaGet(dst, form, q, r)
	case memcached.MetaDebug:
		if r.Status != wire.OK && r.Status != wire.Stale {
			return append(dst, "EN\r\n"...)
		}
		item := metaItem(r)
		return form.AppendDebug(dst, &item)
	case memcached.Delete, memcached.MetaDelete:
		return appendDelete(dst, form, &r.Items[0])
	case memcached.Incr, memcached.Decr:
		return appendNumber(dst, form, r)
	case memcached.MetaArithmetic:
		return appendMetaNumber(dst, form, r)
	case memcached.Touch:
		if len(r.Items) == 1 {
			r = &r.Items[0]
		}
		return line(dst, form, r, "TOUCHED", "NOT_FOUND")
	case memcached.FlushAll:
		return form.AppendLine(dst, "OK")
	}
	return appendStored(dst, form, q, r)
}

// line appends one of two lines, or an error.
func line(dst []byte, form *textForm, r *wire.Reply, ok, miss string) []byte {
	switch {
	case r.Status.IsError():
		return appendTextError(dst, form, r)
	case r.Status == wire.OK:
		return form.AppendLine(dst, ok)
	}
	return form.AppendLine(dst, miss)
}

// appendTextError appends an error as memcached says it.
func appendTextError(dst []byte, form *textForm, r *wire.Reply) []byte {
	switch r.Status {
	case wire.BadRequest, wire.Unauthorized, wire.Unsupported:
		return form.AppendError(dst, "CLIENT_ERROR", r.Message)
	case wire.TooLarge:
		return form.AppendLine(dst, memcached.TooLarge)
	}
	return form.AppendError(dst, "SERVER_ERROR "+r.Status.String()+":", r.Message)
}

// appendGet appends the values of a get. A key that cannot be read beside others is a miss.
func appendGet(dst []byte, form *textForm, q *wire.Request, r *wire.Reply) []byte {
	switch {
	case q.Op == wire.OpMGet:
		for i := range r.Items {
			if item := itemOf(&r.Items[i]); r.Items[i].Status == wire.OK {
				dst = form.AppendItem(dst, form.prefix, q.Keys[i], &item)
			}
		}
	case r.Status == wire.OK:
		item := itemOf(r)
		dst = form.AppendItem(dst, nil, form.Key, &item)
	}
	if form.more {
		return dst
	}
	return append(dst, memcached.End...)
}

// metaItem returns what the reply to a METAGET says.
func metaItem(r *wire.Reply) memcached.Item {
	item := itemOf(r)
	item.Size = int(r.Size)
	item.Read, item.Idle = r.Read, int64(r.IdleMS/1000)
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
func appendMetaGet(dst []byte, form *textForm, q *wire.Request, r *wire.Reply) []byte {
	item := itemOf(r)
	item.Stale = r.Status == wire.Stale
	switch {
	case r.Status == wire.Miss && r.Claim == wire.ClaimNone:
		return form.AppendMiss(dst)
	case q.Op == wire.OpMetaGet:
		item = metaItem(r)
	}
	return form.AppendItem(dst, nil, nil, &item)
}

func appendDelete(dst []byte, form *textForm, r *wire.Reply) []byte {
	if form.Verb == memcached.Delete {
		return line(dst, form, r, "DELETED", "NOT_FOUND")
	}
	return code(dst, form, r, nil)
}

// code appends the answer to a meta command that brings no value.
func code(dst []byte, form *textForm, r *wire.Reply, item *memcached.Item) []byte {
	switch {
	case r.Status.IsError():
		return appendTextError(dst, form, r)
	case r.Status == wire.OK && form.Quiet:
		return dst
	case r.Status == wire.OK:
		return form.AppendCode(dst, "HD", item)
	case r.Status == wire.Exists:
		return form.AppendCode(dst, "EX", item)
	case r.Status == wire.NotStored:
		return form.AppendCode(dst, "NS", item)
	}
	return form.AppendCode(dst, "NF", item)
}

const notNumber = "CLIENT_ERROR cannot increment or decrement non-numeric value"

func appendNumber(dst []byte, form *textForm, r *wire.Reply) []byte {
	switch r.Status {
	case wire.OK:
		if form.Quiet {
			return dst
		}
		return append(strconv.AppendUint(dst, uint64(r.Number), 10), "\r\n"...)
	case wire.NotStored:
		return form.AppendLine(dst, notNumber)
	}
	return form.AppendLine(dst, "NOT_FOUND")
}

func appendMetaNumber(dst []byte, form *textForm, r *wire.Reply) []byte {
	switch r.Status {
	case wire.OK:
		if form.Quiet {
			return dst
		}
		var digits [20]byte
		item := itemOf(r)
		item.Value = strconv.AppendUint(digits[:0], uint64(r.Number), 10)
		item.Size = len(item.Value)
		return form.AppendItem(dst, nil, nil, &item)
	case wire.NotStored:
		return append(append(dst, notNumber...), "\r\n"...)
	}
	return code(dst, form, r, nil)
}

// appendStored appends the answer to a command that brings a value.
func appendStored(dst []byte, form *textForm, q *wire.Request, r *wire.Reply) []byte {
	status := r.Status
	item := memcached.Item{Version: r.Version}
	if len(r.Items) == 1 { // a deletion in the place of a value that was over at once
		r = &r.Items[0]
		status = r.Status
	}
	switch {
	case r.Status.IsError():
		return appendTextError(dst, form, r)
	case form.expired && form.mode == memcached.Set:
		status = wire.OK
	case form.expired && form.mode == memcached.Add && status == wire.Miss:
		status = wire.OK
	case form.expired && form.mode == memcached.Add:
		status = wire.NotStored
	case status == wire.Stale && form.invalidate:
		// The value is older than what has made the present one stale. It is not kept: the
		// next client reads the stale one.
		status = wire.OK
	case status == wire.Stale:
		status = wire.Exists
	case status == wire.Exists && form.mode == memcached.Add,
		status == wire.Miss && form.mode != memcached.CAS:
		status = wire.NotStored
	}
	if status != wire.OK {
		item.Version = 0
	}
	if form.Verb == memcached.MetaSet {
		one := wire.Reply{Status: status}
		return code(dst, form, &one, &item)
	}
	switch status {
	case wire.OK:
		return form.AppendLine(dst, "STORED")
	case wire.Exists:
		return form.AppendLine(dst, "EXISTS")
	case wire.NotStored:
		return form.AppendLine(dst, "NOT_STORED")
	}
	return form.AppendLine(dst, "NOT_FOUND")
}
