package sidecar

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/places"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Where the apps load themselves, the holder gives one of those who miss a key a
// token, and the others wait for what it fills. A token names the very holding
// that issued it: a later one, here or elsewhere, stores nothing that was loaded
// before it began.

// A token, as it travels: random, version, moment on the boot clock, epoch,
// holding, all big endian, then the node's name.
const tokenHead = 4*8 + 4

func (c *core) packToken(t loader.Token) []byte {
	b := make([]byte, 0, tokenHead+len(c.self))
	b = binary.BigEndian.AppendUint64(b, t.Random)
	b = binary.BigEndian.AppendUint64(b, uint64(t.Version))
	b = binary.BigEndian.AppendUint64(b, uint64(t.At))
	b = binary.BigEndian.AppendUint64(b, uint64(c.node.Self().Epoch))
	b = binary.BigEndian.AppendUint32(b, t.Holding)
	return append(b, c.self...)
}

// unpackToken reads a token that this process may have issued. Whether it has,
// the table of leases knows.
func (c *core) unpackToken(b []byte) (t loader.Token, ok bool) {
	if len(b) != tokenHead+len(c.self) || string(b[tokenHead:]) != string(c.self) ||
		binary.BigEndian.Uint64(b[24:]) != uint64(c.node.Self().Epoch) {
		return t, false
	}
	t.Random = binary.BigEndian.Uint64(b)
	t.Version = kv.Version(binary.BigEndian.Uint64(b[8:]))
	t.At = time.Duration(binary.BigEndian.Uint64(b[16:]))
	t.Holding = binary.BigEndian.Uint32(b[32:])
	return t, true
}

// claim answers a LEASE of a key that is missing here: with a token, or with
// what who has one fills. MOVED says that it is to be looked up again.
func (c *core) claim(ctx context.Context, ns *namespaces.Namespace, key kv.Key, q *wire.Request, deadline time.Duration) wire.Reply {
	now := c.clock.Read()
	holding := c.node.Holds(key.Hash.Partition())
	if holding == 0 {
		return moved()
	}
	claim := loader.Claim{Key: key, Holding: holding, Begin: c.stamp, Time: ns.LeaseTime}
	if m := places.Of(ctx); m != nil {
		claim.Place = m
	}
	var grant loader.Grant
	var err error
	if old, ok := c.staleReply(ns, key, now); ok && q.Has(wire.StaleOK) {
		var free bool
		if grant.Token, free, err = c.leases.Try(claim); err == nil && !free {
			return old
		}
	} else {
		ctx, cancel := context.WithTimeout(ctx, deadline-now.Boot)
		defer cancel()
		grant, err = c.leases.Claim(ctx, claim)
	}
	switch {
	case err != nil:
		return claimError(ns, err)
	case !grant.Holds():
		if !grant.Result.Uncached {
			return moved() // it is in the store
		}
		return uncached(grant.Result.Value, grant.Result.Version)
	}
	return c.granted(ns, key, grant.Token)
}

// claimError says why there is no token.
func claimError(ns *namespaces.Namespace, err error) wire.Reply {
	var busy *wire.Error
	switch {
	case errors.As(err, &busy):
		return wire.ErrorReply(busy)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return wire.ErrorReply(waitedInVain)
	}
	return loadError(ns, err)
}

// grant answers a LEASE, with a token or with why there is none for this client, where
// nothing is to be waited for: this host holds the key, nothing of it is on its way, and
// its token is free.
func (c *session) grant(conn *rpc.Conn) bool {
	q, core := c.req, c.core
	ns := c.names.Read(q.Namespace)
	if ns == nil || ns.Origin != nil || q.Has(wire.StaleOK) || checkKey(q.Key) != nil {
		return false
	}
	key := ns.Key(q.Key)
	partition := key.Hash.Partition()
	holding := core.node.Holds(partition) // before its source
	if holding == 0 || core.handoff.Incoming[partition].Load() != nil {
		return false
	}
	claim := loader.Claim{Key: key, Holding: holding, Begin: core.stamp, Time: ns.LeaseTime}
	if c.member != nil {
		claim.Place = c.member
	}
	token, free, err := core.leases.Try(claim)
	switch {
	case err != nil:
		c.reply = claimError(ns, err)
	case !free:
		return false
	default:
		if c.reply = core.granted(ns, key, token); c.reply.Status == wire.Moved {
			return false
		}
	}
	c.tally.add(ns, q.Op, namespaces.OutcomeOf(&c.reply))
	c.given(q, &c.reply)
	c.answer(conn)
	return true
}

// granted answers with a token, unless somebody has filled the key since it was missed.
func (c *core) granted(ns *namespaces.Namespace, key kv.Key, t loader.Token) wire.Reply {
	if _, there := c.store.Peek(key, c.clock.Read().Boot); there {
		c.leases.Abandon(t)
		return moved()
	}
	return wire.Reply{Status: wire.Lease, Token: c.packToken(t), TTLMS: ns.LeaseTime.Milliseconds()}
}

var waitedInVain = wire.Errorf(wire.Timeout, "somebody else loads the key and has not filled it in the request's time: ask again, or load it yourself without filling it")

// lease passes a LEASE on to the key's owner: one of this host's for each key at a
// time. A value is for all who wait, and kept as a GET's is; a token is for the
// one who asked, and the next in line asks on behalf of the others.
func (c *core) lease(ctx context.Context, owner *cluster.Owner, q *wire.Request, key kv.Key, deadline time.Duration) wire.Reply {
	began := c.clock.Read().Boot
	for {
		now := c.clock.Read()
		if !q.Has(wire.Fresh) {
			if cp := c.copyOf(key, owner, now); cp != nil {
				return c.valueOf(q, cp, wire.SourceL1, owner.LeasedAt(), now)
			}
			if !owner.Answers(now.Boot, c.node.Bound()) {
				return unanswered(q, owner)
			}
		}
		cl, lead := c.calls.join(c, owner, key, questionOf(q), now, deadline, nil)
		if lead {
			out := *q
			out.Options |= wire.Vouch
			var a peer.Answer
			all := context.WithoutCancel(ctx) // the answer may be a token, which is to be given back where nobody wants it
			if cl.err = c.node.Do(all, owner.Process, deadline-now.Boot, &out, &a); cl.err == nil {
				c.take(cl, &a.Reply)
			}
			a.Release()
			c.ended(cl)
			return c.outcome(cl, q, began)
		}
		if !c.waitFor(ctx, cl, deadline) {
			return wire.ErrorReply(waitedInVain)
		}
		if own := !cl.serves(began) || cl.reply.Status == wire.Lease || cl.reply.Status == wire.Timeout; !own {
			return c.outcome(cl, q, began)
		}
		if c.clock.Read().Boot >= deadline {
			return wire.ErrorReply(waitedInVain)
		}
	}
}

// fill answers FILL at the key's holder.
func (c *core) fill(ns *namespaces.Namespace, q *wire.Request, now kv.Moment) wire.Reply {
	t, ok := c.unpackToken(q.Token)
	if q.Has(wire.Abandon) {
		if !ok || !c.leases.Abandon(t) {
			return notStored("the token is not the present one of the key %.64q", q.Key)
		}
		return wire.Reply{}
	}
	if len(q.Value) > int(c.cfg.MaxValue) {
		return wire.ErrorReply(wire.Errorf(wire.TooLarge, "the value has %d bytes, max_value is %d: split it, or raise max_value", len(q.Value), c.cfg.MaxValue))
	}
	if !ok {
		return notStored("the token is none that the present holder of the key %.64q has issued: use the value, and ask again next time", q.Key)
	}
	key := ns.Key(q.Key)
	v := loader.Value{Bytes: bytes.Clone(q.Value), Flags: q.Flags} // who waits shares it
	generation := c.store.Generation(key.Hash.Partition())
	until := untilOf(q)
	if c.overdue(until) { // before it uses the token
		return c.tooLate(q)
	}
	err := c.leases.Fill(key, t, v, func(r loader.Result) bool {
		return c.keep(ns, key, t.Holding, generation, r, until, func(now kv.Moment) kv.Deadline {
			if q.TTLMS == wire.TTLDefault {
				return ns.Lives(&r, now)
			}
			return ns.Deadline(q.TTLMS, now)
		})
	})
	switch {
	case err != nil && c.overdue(until):
		return c.tooLate(q)
	case err != nil:
		return notStored("the key %.64q was invalidated since the token was issued, or the token is not its present one: use the value, and ask again next time", q.Key)
	}
	return wire.Reply{Version: uint64(t.Version)}
}

func notStored(why string, args ...any) wire.Reply {
	return wire.Reply{Status: wire.NotStored, Message: fmt.Appendf(nil, why, args...)}
}

// tokens are those that a connection has been given and has not used: its end
// gives them back, so that the next in line need not wait.
type tokens struct {
	mu    sync.Mutex
	m     map[string]tokenOf
	ended bool
	next  *tokens // of the connection that has taken its place; nil until then
}

// tokenOf is a token of a key.
type tokenOf struct {
	namespace, key string
	until          time.Duration
}

// maxTokens bounds the tokens of one connection that are remembered: more than its
// share at one host. Those beyond end by their time alone.
const maxTokens = 4096

// maxLeases bounds the keys with a token out.
const maxLeases = 1 << 16

// add remembers a token. False says that the connection has ended.
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

// take forgets a token that a FILL uses, and returns what it is of: zero where it is
// not known.
func (t *tokens) take(token []byte) tokenOf {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next != nil {
		return t.next.take(token)
	}
	g := t.m[string(token)]
	delete(t.m, string(token))
	return g
}

// end returns what is left.
func (t *tokens) end() map[string]tokenOf {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	left := t.m
	t.m = nil
	return left
}

// leaveTo gives them to the connection that takes this one's place.
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

// Succeeded gives the tokens of another sidecar's connection to its next one.
func (c *session) Succeeded(next rpc.Handler) {
	if n, ok := next.(*session); ok {
		c.tokens.leaveTo(&n.tokens)
	}
}

// given keeps track of the tokens that a connection has.
func (c *session) given(q *wire.Request, r *wire.Reply) {
	switch {
	case q.Op == wire.OpFill && !r.Status.IsError(): // else the token may be out still
		c.tokens.take(q.Token)
	case q.Op == wire.OpLease && r.Status == wire.Lease:
		ends := c.core.clock.Read().Boot + time.Duration(r.TTLMS)*time.Millisecond
		c.remember(r.Token, tokenOf{string(q.Namespace), string(q.Key), ends})
	}
}

// remember notes a token of the connection, or gives it back if that has ended.
func (c *session) remember(token []byte, g tokenOf) {
	if !c.tokens.add(token, g, c.core.clock.Read().Boot) {
		c.abandon(map[string]tokenOf{string(token): g})
	}
}

// giveBack ends the tokens that the connection has left.
func (c *session) giveBack() { c.abandon(c.tokens.end()) }

// abandon ends tokens, wherever their keys are held.
func (c *session) abandon(list map[string]tokenOf) {
	if len(list) == 0 || !c.s.enter() {
		return
	}
	go func() { // ends with the last token's request; Run waits for it
		defer c.s.inUse.Done()
		for token, g := range list {
			now := c.core.clock.Read()
			if g.until <= now.Boot {
				continue
			}
			q := &wire.Request{
				Op: wire.OpFill, Namespace: []byte(g.namespace), Key: []byte(g.key), Token: []byte(token),
				Options: wire.Abandon, TTLMS: wire.TTLDefault,
			}
			b := namespaces.Pins{Table: c.core.names}
			c.slow(context.Background(), q, &b, c.core.deadlineOf(q, now))
			b.Release()
		}
	}()
}
