package session

import (
	"bytes"
	"sync"

	"github.com/cachesidecar/cachesidecar/internal/memcached"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// text is what a session has if it speaks memcached's protocol.
type text struct {
	door *TextDoor
	form textForm // of the present request
	// refused is why the key of the present request is refused; nil: it has a namespace.
	refused *wire.Error

	late     bool // the first command has come
	commands int  // of the batch
	at       int  // the command that is answered
	n        textTally
	*textWork
}

// textWork is the memory that a Text needs while it serves a batch.
type textWork struct {
	cmds  [server.MaxServe]memcached.Command
	begun [server.MaxServe]*delayed // see askAhead; nil: not begun, or answered
}

var textWorks = sync.Pool{New: func() any { return new(textWork) }}

// textForm is the form of an answer that a request brings, or a part of it.
type textForm struct {
	*memcached.Form
	prefix []byte         // of the keys of an MGET
	mode   memcached.Verb // of a command that brings a value: its condition
	part   bool           // one of several requests of a get
	more   bool           // and not the last one

	vivify, claims bool // of mg: a missing key is claimed too; the caller may claim
	invalidate     bool // of ms: the flag I
	expired        bool // the value was over before it was stored
}

// clone returns a copy whose bytes are its own.
func (f *textForm) clone() *textForm {
	n := *f
	n.Form, n.prefix = f.Form.Clone(), bytes.Clone(f.prefix)
	return &n
}

// metaGet turns the GET of an mg into a METAGET. With claims it may claim the right to load
// the value.
func metaGet(q *wire.Request, form *textForm, claims bool) {
	q.Op, q.Options = wire.OpMetaGet, 0
	if !form.Value {
		q.Options = wire.NoValue
	}
	if claims {
		q.Options |= wire.Claim
		if form.vivify {
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
func turns(form *textForm, q *wire.Request, r *wire.Reply) bool {
	if form == nil || form.Verb != memcached.MetaGet || q.Op != wire.OpGet {
		return false
	}
	missed := r.Status == wire.Miss && r.Why == wire.NotCached && form.vivify
	if r.Status != wire.Stale && !missed && !renews(q, r) {
		return false
	}
	metaGet(q, form, form.claims)
	return true
}
