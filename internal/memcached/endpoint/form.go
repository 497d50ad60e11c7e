package endpoint

import (
	"bytes"

	"github.com/cachesidecar/cachesidecar/internal/memcached"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// form is the form of an answer that a request brings, or a part of it.
type form struct {
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
func (f *form) clone() *form {
	n := *f
	n.Form, n.prefix = f.Form.Clone(), bytes.Clone(f.prefix)
	return &n
}

// metaGet turns the GET of an mg into a METAGET. With claims it may claim the right to load
// the value.
func metaGet(q *wire.Request, f *form, claims bool) {
	q.Op, q.Options = wire.OpMetaGet, 0
	if !f.Value {
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
	if f.Verb != memcached.MetaGet || q.Op != wire.OpGet {
		return false
	}
	missed := r.Status == wire.Miss && r.Why == wire.NotCached && f.vivify
	if r.Status != wire.Stale && !missed && !renews(q, r) {
		return false
	}
	metaGet(q, f, f.claims)
	return true
}
