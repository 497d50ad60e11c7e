package access

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// Caller is the app at the other end of a connection, and what it may do. It must not be
// used concurrently.
type Caller struct {
	Peer  unixsock.Peer
	Ended error // why the connection must end; nil: it goes on

	memcached bool // it is a client of the memcached endpoint, and Peer is not known

	of       *Rules
	rules    *rules // those that entitled and line are from
	shown    digest // of the token that it has shown; zero is none
	token    string // its name
	entitled entitled

	principal *Principal // see Principal; nil: it has not been asked for

	last    [kv.MaxNamespaceLen]byte // the namespace asked about last, of lastLen bytes
	lastLen int
	line    int // its line
}

// Caller returns a process that has shown no token.
func (table *Rules) Caller(p unixsock.Peer) Caller {
	c := Caller{Peer: p, of: table}
	c.follow(table.now.Load())
	return c
}

// Memcached returns a client of the memcached endpoint.
func (table *Rules) Memcached() Caller {
	c := Caller{memcached: true, of: table}
	c.follow(table.now.Load())
	return c
}

// Administers reports whether the caller administers the sidecar as a whole.
func (c *Caller) Administers() bool { return c.entitled.admin }

// follow goes over to other rules. A token that they do not know any more gives no right.
func (c *Caller) follow(r *rules) {
	c.rules, c.token, c.principal = r, "", nil
	c.lastLen, c.line = 0, 0
	if c.memcached {
		c.entitled = r.ofMemcached()
		return
	}
	c.entitled = r.of(c.Peer)
	if c.shown == (digest{}) {
		return
	}
	if t := r.find(c.shown); t != nil {
		c.token = t.name
		c.entitled.add(r, t.grants)
	}
}

// lineOf returns a namespace's line in the rules.
func (c *Caller) lineOf(name []byte) int {
	if len(c.rules.lines) == 0 || len(name) > len(c.last) {
		return 0
	}
	if string(c.last[:c.lastLen]) != string(name) {
		c.lastLen = copy(c.last[:], name)
		c.line = int(c.rules.lines[string(name)])
	}
	return c.line
}

// Refusal returns why a request is refused, and the right that is missing. It returns nil
// if the request may be served.
func (c *Caller) Refusal(q *wire.Request) (*wire.Error, Right) {
	least, line := c.missing(q)
	if least == Nothing {
		return nil, Nothing
	}
	return c.unauthorized(q, least, line), least
}

// May reports whether Refusal returns nil. It counts no refusal.
func (c *Caller) May(q *wire.Request) bool {
	least, _ := c.missing(q)
	return least == Nothing
}

// missing returns the right that a request lacks, and the line of the rules where, or -1 for
// the sidecar as a whole. It returns Nothing if the request may be served.
func (c *Caller) missing(q *wire.Request) (Right, int) {
	if now := c.of.now.Load(); now != c.rules {
		c.follow(now)
	}
	line := c.lineOf(q.Namespace)
	switch need := q.Need(); need {
	case wire.NeedNone:
		return Nothing, 0
	case wire.NeedRead, wire.NeedWrite, wire.NeedFlush, wire.NeedInspect:
		least := Read
		switch {
		case need == wire.NeedInspect, need == wire.NeedFlush && (line != 0 || c.rules.ruled):
			least = Admin
		case need != wire.NeedRead:
			least = Write
		}
		if c.entitled.in[line] >= least {
			return Nothing, 0
		}
		return least, line
	case wire.NeedReadAny, wire.NeedInspectAny:
		least := Read
		if need == wire.NeedInspectAny {
			least = Admin
		}
		if slices.Max(c.entitled.in) >= least {
			return Nothing, 0
		}
		return least, 0
	case wire.NeedRule:
		if c.entitled.admin {
			return Nothing, 0
		}
	}
	return Admin, -1
}

// unauthorized returns the answer to a request that needs the right r in the namespaces
// of a line, or in the sidecar as a whole if line is -1.
func (c *Caller) unauthorized(q *wire.Request, r Right, line int) *wire.Error {
	c.of.refusals[r].Add(1)
	caller, principal := fmt.Sprintf("uid %d", c.Peer.UID), fmt.Sprintf("user:%d", c.Peer.UID)
	if c.memcached {
		caller, principal = "a client of memcached's protocol", Memcached
	}
	if c.token != "" {
		caller += " with token " + c.token
	}
	if line < 0 {
		return wire.Errorf(wire.Unauthorized, "%s may not ask for %s of %s: "+
			"it needs the right admin of the whole sidecar, which root, "+
			"the sidecar's own user (uid %d) and the members of admin_group have: "+
			"run it as one of them, or add the user to admin_group",
			caller, q.Op, wholeOf(q), c.rules.own)
	}
	at := Others
	if line > 0 {
		at = string(q.Namespace)
	}
	return wire.Errorf(wire.Unauthorized, "%s may not %s in namespace %.64q: it needs the right %s there: "+
		"add %s to access, %q, %s in the sidecar's configuration",
		caller, q.Op, q.Namespace, r, principal, at, r)
}

// wholeOf names what an operation of administrators concerns.
func wholeOf(q *wire.Request) string {
	switch q.Op {
	case wire.OpFlush:
		return "all namespaces"
	case wire.OpForget:
		return "a host"
	case wire.OpReload:
		return "its configuration"
	case wire.OpDrain:
		return "this host"
	}
	return "the cluster"
}

// Show notes the token of a HELLO; "" is none, and takes back the token before. A token
// that is unknown ends the connection, after the answer.
func (c *Caller) Show(secret string) *wire.Error {
	c.shown = digest{}
	if secret != "" {
		c.shown = sha256.Sum256([]byte(secret))
	}
	c.follow(c.of.now.Load())
	if secret != "" && c.token == "" {
		c.of.refusals[Nothing].Add(1)
		c.Ended = errToken
		return wire.Errorf(wire.Unauthorized, "HELLO of uid %d: %v: "+
			"give the client the content of a file that the configuration "+
			"names under tokens", c.Peer.UID, errToken)
	}
	return nil
}

// Principal is the user of a caller, its token, and its rights under the present rules. Callers
// of equal principals may know everything of each other.
type Principal struct {
	UID    int
	rules  *rules
	token  string
	rights string // by line of the rules
}

// Principal returns the caller's. It is that of the latest request.
func (c *Caller) Principal() *Principal {
	if c.principal == nil {
		rights := make([]byte, len(c.entitled.in))
		for i, r := range c.entitled.in {
			rights[i] = byte(r)
		}
		c.principal = &Principal{UID: c.Peer.UID, rules: c.rules, token: c.token, rights: string(rights)}
	}
	return c.principal
}

// MayRead reports whether the principal may read in a namespace. It may be called concurrently.
func (p *Principal) MayRead(namespace string) bool { return p.right(namespace) >= Read }

// MayAdmin is MayRead for the right Admin.
func (p *Principal) MayAdmin(namespace string) bool { return p.right(namespace) >= Admin }

func (p *Principal) right(namespace string) Right { return Right(p.rights[p.rules.lines[namespace]]) }

// Present reports whether a principal's rules are the present ones.
func (table *Rules) Present(p *Principal) bool { return p.rules == table.now.Load() }
