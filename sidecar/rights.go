package sidecar

import (
	"fmt"
	"log/slog"
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

// caller is who is at the other end of an app's session, and what it may do.
type caller struct {
	peer     unixsock.Peer
	token    string // the name of the one that it has shown
	entitled entitled
	told     bool  // a refusal has been logged
	ended    error // why the connection is to end
}

// refusal says why c.req is refused; nil is that it may be served.
func (c *session) refusal() *wire.Error {
	q := c.req
	d := &demands[q.Op]
	need := d.need
	if q.Options&d.with != 0 {
		need = d.more
	}
	switch need {
	case open:
		return nil
	case toRead, toWrite, toFlush:
		line := c.line(q.Namespace)
		least := mayRead
		switch {
		case need == toFlush && (line != 0 || c.core.access.ruled):
			least = mayAdmin
		case need != toRead:
			least = mayWrite
		}
		if c.by.entitled.in[line] >= least {
			return nil
		}
		return c.unauthorized(least, line)
	case toReadAny:
		if slices.Max(c.by.entitled.in) >= mayRead {
			return nil
		}
		return c.unauthorized(mayRead, 0)
	}
	if need == toRule && c.by.entitled.admin {
		return nil
	}
	return c.unauthorized(mayAdmin, -1)
}

// line is a namespace's line in the rules.
func (c *session) line(name []byte) int {
	if last := c.names.last; last != nil && last.name == string(name) {
		return int(last.line)
	}
	return int(c.core.access.lines[string(name)])
}

// unauthorized is the answer to a request that needs a right in the namespaces of a
// line, or with line -1 in the sidecar as a whole.
func (c *session) unauthorized(r right, line int) *wire.Error {
	q := c.req
	c.core.access.refusals[r].Add(1)
	if !c.by.told {
		c.by.told = true
		c.log(slog.LevelWarn, "refused a request: its user lacks a right; more refusals of this connection are not logged",
			"op", q.Op.String(), "right", r.String(), "namespace", string(q.Namespace))
	}
	who := fmt.Sprintf("uid %d", c.by.peer.UID)
	if c.by.token != "" {
		who += " with token " + c.by.token
	}
	if line < 0 {
		return wire.Errorf(wire.Unauthorized, "%s may not ask for %s of %s: it needs the right admin of the whole sidecar, which root, "+
			"the sidecar's own user (uid %d) and the members of admin_group have: run it as one of them, or add the user to admin_group",
			who, q.Op, wholeOf(q), c.core.access.own)
	}
	at := Others
	if line > 0 {
		at = string(q.Namespace)
	}
	return wire.Errorf(wire.Unauthorized, "%s may not %s in namespace %.64q: it needs the right %s there: "+
		"add user:%d to access, %q, %s in the sidecar's configuration",
		who, q.Op, q.Namespace, r, c.by.peer.UID, at, r)
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

// show notes the token of a HELLO; "" is none, and takes back the one before. One that
// is not known ends the connection, after its answer.
func (c *session) show(secret string) *wire.Error {
	a := c.core.access
	c.by.token, c.by.entitled = "", a.of(c.by.peer)
	if secret == "" {
		return nil
	}
	t, err := a.find(secret)
	if err != nil {
		a.refusals[mayNothing].Add(1)
		c.by.ended = err
		return wire.Errorf(wire.Unauthorized, "HELLO of uid %d: %v: give the client the content of a file that the configuration "+
			"names under tokens", c.by.peer.UID, err)
	}
	c.by.token = t.name
	c.by.entitled.add(a, t.grants)
	return nil
}

// mayTell says whether the session's caller may hear of a namespace's flushes.
func (c *session) mayTell() func(namespace string) bool {
	e, a := c.by.entitled, c.core.access
	return func(namespace string) bool { return e.in[a.lines[namespace]] >= mayRead }
}
