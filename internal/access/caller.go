package access

import (
	"fmt"
	"slices"

	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// need is what a caller must be entitled to for an operation.
type need uint8

const (
	closed    need = iota // an operation without a line in demands is refused to all callers
	open                  // all callers that can open the socket
	toRead                // in the request's namespace
	toWrite               // in the request's namespace
	toFlush               // in the request's namespace: Admin if the configuration rules it, else Write
	toReadAny             // in at least one namespace
	toRule                // the sidecar as a whole
)

// demand is what an operation needs.
type demand struct {
	need need
	with wire.Options // a request with one of these options
	more need         // needs this instead
}

// demands has the demands of the operations of apps. Requests of other sidecars have
// none: the sidecar that took the request from an app has decided.
var demands = [wire.OpCount]demand{
	wire.OpHello:   {need: open},
	wire.OpPing:    {need: open},
	wire.OpStats:   {need: open, with: wire.Cluster, more: toRule},
	wire.OpMembers: {need: open},
	wire.OpRing:    {need: open},
	wire.OpGet:     {need: toRead},
	wire.OpMGet:    {need: toRead},
	wire.OpWatch:   {need: toRead, with: wire.All, more: toReadAny},
	wire.OpSet:     {need: toWrite},
	wire.OpDelete:  {need: toWrite},
	wire.OpTouch:   {need: toWrite},
	wire.OpIncr:    {need: toWrite},
	wire.OpLease:   {need: toWrite},
	wire.OpFill:    {need: toWrite},
	wire.OpFlush:   {need: toFlush, with: wire.All, more: toRule},
	wire.OpVerify:  {need: toRule},
	wire.OpForget:  {need: toRule},
}

// Caller is the app at the other end of a connection, and what it may do. It must not be
// used concurrently.
type Caller struct {
	Peer  unixsock.Peer
	Ended error // why the connection must end; nil: it goes on

	rules    *Rules
	token    string // the name of the token that it has shown
	entitled entitled
}

// Caller returns a process that has shown no token.
func (a *Rules) Caller(p unixsock.Peer) Caller { return Caller{Peer: p, rules: a, entitled: a.of(p)} }

// Refusal returns why a request is refused, and the right that is missing. It returns nil
// if the request may be served. line is that of the request's namespace.
func (c *Caller) Refusal(q *wire.Request, line int) (*wire.Error, Right) {
	d := &demands[q.Op]
	need := d.need
	if q.Options&d.with != 0 {
		need = d.more
	}
	switch need {
	case open:
		return nil, Nothing
	case toRead, toWrite, toFlush:
		least := Read
		switch {
		case need == toFlush && (line != 0 || c.rules.ruled):
			least = Admin
		case need != toRead:
			least = Write
		}
		if c.entitled.in[line] >= least {
			return nil, Nothing
		}
		return c.unauthorized(q, least, line)
	case toReadAny:
		if slices.Max(c.entitled.in) >= Read {
			return nil, Nothing
		}
		return c.unauthorized(q, Read, 0)
	}
	if need == toRule && c.entitled.admin {
		return nil, Nothing
	}
	return c.unauthorized(q, Admin, -1)
}

// unauthorized returns the answer to a request that needs the right r in the namespaces
// of a line, or in the sidecar as a whole if line is -1.
func (c *Caller) unauthorized(q *wire.Request, r Right, line int) (*wire.Error, Right) {
	c.rules.refusals[r].Add(1)
	caller := fmt.Sprintf("uid %d", c.Peer.UID)
	if c.token != "" {
		caller += " with token " + c.token
	}
	if line < 0 {
		return wire.Errorf(wire.Unauthorized, "%s may not ask for %s of %s: "+
			"it needs the right admin of the whole sidecar, which root, "+
			"the sidecar's own user (uid %d) and the members of admin_group have: "+
			"run it as one of them, or add the user to admin_group",
			caller, q.Op, wholeOf(q), c.rules.own), r
	}
	at := Others
	if line > 0 {
		at = string(q.Namespace)
	}
	return wire.Errorf(wire.Unauthorized, "%s may not %s in namespace %.64q: it needs the right %s there: "+
		"add user:%d to access, %q, %s in the sidecar's configuration",
		caller, q.Op, q.Namespace, r, c.Peer.UID, at, r), r
}

// wholeOf names what an operation of administrators concerns.
func wholeOf(q *wire.Request) string {
	switch q.Op {
	case wire.OpFlush:
		return "all namespaces"
	case wire.OpForget:
		return "a host"
	}
	return "the cluster"
}

// Show notes the token of a HELLO; "" is none, and takes back the token before. A token
// that is unknown ends the connection, after the answer.
func (c *Caller) Show(secret string) *wire.Error {
	a := c.rules
	c.token, c.entitled = "", a.of(c.Peer)
	if secret == "" {
		return nil
	}
	t, err := a.find(secret)
	if err != nil {
		a.refusals[Nothing].Add(1)
		c.Ended = err
		return wire.Errorf(wire.Unauthorized, "HELLO of uid %d: %v: "+
			"give the client the content of a file that the configuration "+
			"names under tokens", c.Peer.UID, err)
	}
	c.token = t.name
	c.entitled.add(a, t.grants)
	return nil
}

// MayRead returns a function that reports whether the caller, with its present token, may
// read in a namespace. The function may be called concurrently.
func (c *Caller) MayRead() func(namespace string) bool {
	e, a := c.entitled, c.rules
	return func(namespace string) bool { return e.in[a.lines[namespace]] >= Read }
}
