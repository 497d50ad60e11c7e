package access

import (
	"fmt"
	"slices"

	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// need is what a caller must be entitled to for an op.
type need uint8

const (
	closed    need = iota // an op that has no line below is refused to all
	open                  // all who may open the socket
	toRead                // in the request's namespace
	toWrite               // in it
	toFlush               // in it: admin where the configuration rules it, else write
	toReadAny             // in some namespace
	toRule                // the sidecar as a whole
)

// demand is what an op needs.
type demand struct {
	need need
	with wire.Options // with one of these options
	more need         // it needs this instead
}

// demands are those of the ops of apps. Requests of other sidecars have none: the
// sidecar that took the request from an app has decided.
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

// Caller is the app at the other end of a connection, and what it may do.
type Caller struct {
	Peer  unixsock.Peer
	Ended error // why the connection is to end

	rules    *Rules
	token    string // the name of the one that it has shown
	entitled entitled
}

// Caller returns what a process may do that has shown no token.
func (a *Rules) Caller(p unixsock.Peer) Caller { return Caller{Peer: p, rules: a, entitled: a.of(p)} }

// Refusal returns why a request is refused, and the right that is missing. It returns
// nil if the request may be served. The request's namespace has the line.
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

// unauthorized is the answer to a request that needs a right in the namespaces of a
// line, or with line -1 in the sidecar as a whole.
func (c *Caller) unauthorized(q *wire.Request, r Right, line int) (*wire.Error, Right) {
	c.rules.refusals[r].Add(1)
	who := fmt.Sprintf("uid %d", c.Peer.UID)
	if c.token != "" {
		who += " with token " + c.token
	}
	if line < 0 {
		return wire.Errorf(wire.Unauthorized, "%s may not ask for %s of %s: it needs the right admin of the whole sidecar, which root, "+
			"the sidecar's own user (uid %d) and the members of admin_group have: run it as one of them, or add the user to admin_group",
			who, q.Op, wholeOf(q), c.rules.own), r
	}
	at := Others
	if line > 0 {
		at = string(q.Namespace)
	}
	return wire.Errorf(wire.Unauthorized, "%s may not %s in namespace %.64q: it needs the right %s there: "+
		"add user:%d to access, %q, %s in the sidecar's configuration",
		who, q.Op, q.Namespace, r, c.Peer.UID, at, r), r
}

// wholeOf is what an op of administrators concerns.
func wholeOf(q *wire.Request) string {
	switch q.Op {
	case wire.OpFlush:
		return "all namespaces"
	case wire.OpForget:
		return "a host"
	}
	return "the cluster"
}

// Show notes the token of a HELLO; "" is none, and takes back the one before. One that
// is not known ends the connection, after its answer.
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
		return wire.Errorf(wire.Unauthorized, "HELLO of uid %d: %v: give the client the content of a file that the configuration "+
			"names under tokens", c.Peer.UID, err)
	}
	c.token = t.name
	c.entitled.add(a, t.grants)
	return nil
}

// MayRead returns a function that says whether the caller, with its present token, may
// read in a namespace.
func (c *Caller) MayRead() func(namespace string) bool {
	e, a := c.entitled, c.rules
	return func(namespace string) bool { return e.in[a.lines[namespace]] >= Read }
}
