package session

import (
	"context"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// grant answers a LEASE in place, if the engine can.
func (c *Handler) grant(conn *server.Conn) bool {
	ns := c.Names.Read(c.Req.Namespace)
	if ns == nil {
		return false
	}
	r, ok := c.Core.Tokens.Grant(ns, c.Req, c.asker(c.Req, conn))
	if !ok {
		return false
	}
	c.Reply = r
	c.Tally.Add(ns, c.Req.Op, namespaces.OutcomeOf(&c.Reply))
	c.given(c.Req, &c.Reply)
	c.appendReply(conn)
	return true
}

// tokens are the lease tokens and claims that a connection has been given and has not used. The end
// of the connection gives them back, so that the next waiting client gets its turn early.
type tokens struct {
	mu    sync.Mutex
	m     map[string]tokenOf
	ended bool
	next  *tokens // of the connection that has taken this one's place; nil until then
}

// tokenOf is a token of a key.
type tokenOf struct {
	namespace, key string
	until          time.Duration
}

// maxTokens bounds the remembered tokens of one connection. It is above the connection's
// share at one host. Tokens beyond it end only by their time.
const maxTokens = 4096

// add remembers a token. It returns false if the connection has ended.
func (t *tokens) add(token []byte, g tokenOf, now time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.next != nil:
		return t.next.add(token, g, now)
	case t.ended:
		return false
	}
	if len(t.m) >= maxTokens {
		for token, g := range t.m {
			if g.until <= now {
				delete(t.m, token)
			}
		}
	}
	if t.m == nil {
		t.m = map[string]tokenOf{}
	}
	if len(t.m) < maxTokens {
		t.m[string(token)] = g
	}
	return true
}

// takeToken forgets a token that a FILL uses, and returns its key: zero if the token is
// unknown.
func (t *tokens) takeToken(token []byte) tokenOf {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next != nil {
		return t.next.takeToken(token)
	}
	g := t.m[string(token)]
	delete(t.m, string(token))
	return g
}

// endTokens ends the set and returns the tokens that are left.
func (t *tokens) endTokens() map[string]tokenOf {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	left := t.m
	t.m = nil
	return left
}

// leaveTo gives the tokens to the connection that takes this one's place.
func (t *tokens) leaveTo(next *tokens) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended || t.next != nil {
		return
	}
	next.mu.Lock()
	defer next.mu.Unlock()
	t.next, next.m, t.m = next, t.m, nil
}

// Succeeded gives the tokens of another sidecar's connection to its next connection.
func (c *Handler) Succeeded(next server.Handler) {
	if n, ok := next.(*Handler); ok {
		c.tokens.leaveTo(&n.tokens)
	}
}

// given keeps track of the tokens that the connection has.
func (c *Handler) given(q *wire.Request, r *wire.Reply) {
	switch {
	case q.Op == wire.OpFill && !r.Status.IsError(): // after an error the token may still be out
		c.tokens.takeToken(q.Token)
	case q.Op == wire.OpSet && q.Mode == wire.ModeCAS && !r.Status.IsError():
		c.tokens.takeToken(wire.ClaimToken(q.Compare))
	case q.Op == wire.OpLease && r.Status == wire.Lease:
		c.remember(r.Token, c.tokenOf(q, time.Duration(r.TTLMS)*time.Millisecond))
	case q.Op == wire.OpMetaGet && r.Claim == wire.ClaimWon && q.App: // else the app's own host keeps track
		lasts := time.Duration(q.LeaseMS) * time.Millisecond
		if ns := c.Core.Namespaces.Lookup(q.Namespace); ns != nil && lasts == 0 {
			lasts = ns.LeaseTime
		}
		c.remember(wire.ClaimToken(uint64(r.Number)), c.tokenOf(q, lasts))
	}
}

func (c *Handler) tokenOf(q *wire.Request, lasts time.Duration) tokenOf {
	return tokenOf{string(q.Namespace), string(q.Key), c.Core.Clock.Read().Boot + lasts}
}

// remember notes a token of the connection, or gives it back if the connection has ended.
func (c *Handler) remember(token []byte, g tokenOf) {
	if !c.tokens.add(token, g, c.Core.Clock.Read().Boot) {
		c.abandon(map[string]tokenOf{string(token): g})
	}
}

// giveBack gives back the tokens that the connection has left.
func (c *Handler) giveBack() { c.abandon(c.tokens.endTokens()) }

// abandon gives tokens back to the owners of their keys.
func (c *Handler) abandon(list map[string]tokenOf) {
	if len(list) == 0 {
		return
	}
	leave, ok := c.Sessions.Host.Enter()
	if !ok {
		return
	}
	go func() { // ends with the last token's request; Run waits for it
		defer leave()
		for token, g := range list {
			now := c.Core.Clock.Read()
			if g.until <= now.Boot {
				continue
			}
			q := &wire.Request{
				Op: wire.OpFill, Namespace: []byte(g.namespace), Key: []byte(g.key), Token: []byte(token),
				Options: wire.Abandon, TTLMS: wire.TTLDefault, By: c.App,
			}
			b := namespaces.Pins{Table: c.Core.Namespaces}
			c.serveWaiting(context.Background(), q, &b, c.Core.Deadlines.Of(q, now))
			b.Release()
		}
	}()
}
