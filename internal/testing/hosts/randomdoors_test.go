package hosts

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/history"
	"github.com/cachesidecar/cachesidecar/internal/testing/simnet"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// The doors at which apps of a random run read and change keys, beside GET, SET and DELETE: METAGET
// with claims, LEASE and FILL, conditions, soft deletions and touches, over the socket's protocol and
// over memcached's. In the history a value that is stored with a claim or a token is that of a SET,
// which begins when the value is sent. What was refused was certainly not executed.

// app is an app that works on a key through a process.
type app struct {
	w    *world
	rnd  *rand.Rand
	k    *vkey
	v    *vnode
	host *simnet.Host
	s    *Sidecar
	by   string
	text bool // it speaks memcached's protocol
}

// app returns an app at a process that serves; nil: there is none.
func (w *world) app(rnd *rand.Rand, k *vkey, text bool) *app {
	s, by, _ := w.any(rnd)
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.IndexFunc(w.nodes, func(v *vnode) bool { return v.s == s })
	if s == nil || i < 0 {
		return nil
	}
	v := w.nodes[i]
	return &app{w: w, rnd: rnd, k: k, v: v, host: v.host, s: s, by: by, text: text}
}

// readAtDoor reads a key in shared memory, and at one of the doors.
func (w *world) readAtDoor(rnd *rand.Rand, k *vkey) {
	w.readByMemory(rnd, k)
	if a := w.app(rnd, k, rnd.IntN(2) == 0); a != nil {
		a.look(false)
	}
}

// writeAtDoor changes a key at one of the doors.
func (w *world) writeAtDoor(rnd *rand.Rand, k *vkey) {
	a := w.app(rnd, k, rnd.IntN(2) == 0)
	if a == nil {
		return
	}
	switch n := rnd.IntN(12); {
	case w.fromOrigin() || n < 2:
		a.remove()
	case n < 6 || n < 8 && a.text:
		a.claim()
	case n < 8:
		a.load()
	case n < 9:
		a.swap()
	case n < 10:
		a.touch()
	default:
		a.store()
	}
}

// look reads the key with its version. With claim the app also wants the right to load it.
func (a *app) look(claim bool) (r wire.Reply) {
	fresh := !a.text && a.w.origin == nil // mg may have a copy, and METAGET may join a load
	read := a.w.begin(history.Op{Key: string(a.k.name), Host: a.by, Fresh: fresh})
	switch {
	case a.text && claim:
		r = a.talk("mg %s v c N2 R3600", a.k.name)
	case a.text:
		r = a.talk([]string{"get %s", "gets %s", "mg %s v c"}[a.rnd.IntN(3)], a.k.name)
	case claim:
		r = a.ask(wire.Request{
			Op: wire.OpMetaGet, Options: wire.Claim | wire.Create, LeaseMS: 2000, RenewMS: wire.MaxTimeout,
			TTLMS: wire.TTLDefault,
		})
	default:
		r = a.ask(wire.Request{Op: wire.OpMetaGet, TTLMS: wire.TTLDefault})
	}
	a.found(read, &r)
	return r
}

// rest rests, and for as long as the host is stopped: what does not run answers nothing.
func (a *app) rest(d time.Duration) {
	for stopped := true; stopped; d = time.Millisecond {
		time.Sleep(d)
		a.w.mu.Lock()
		stopped = a.v.s == a.s && a.v.paused
		a.w.mu.Unlock()
	}
}

// claim stores a value with the right to load it, if the app gets that right. In between an app
// of the same host may have read the value of before, and its copy is younger than the claim.
func (a *app) claim() {
	got := a.look(true)
	if got.Claim != wire.ClaimWon {
		return
	}
	what := "claims"
	if got.Status == wire.OK {
		what = "renewals"
	}
	longest := []int{60, 60, 60, 1500}[a.rnd.IntN(4)]
	a.rest(time.Duration(a.rnd.IntN(longest*1000)) * time.Microsecond)
	if a.rnd.IntN(2) == 0 {
		a.w.readFrom(context.Background(), a.s, a.by, a.k)
	}
	ttl := a.ttl()
	a.change(what, history.Op{Kind: history.Set, TTL: ttl}, true, func(value []byte) wire.Reply {
		return a.set(value, wire.ModeCAS, uint64(got.Number), ttl)
	})
}

// load fills the key with a lease token, if there is no value.
func (a *app) load() {
	read := a.w.begin(history.Op{Key: string(a.k.name), Host: a.by})
	got := a.ask(wire.Request{Op: wire.OpLease, TTLMS: wire.TTLDefault})
	if a.found(read, &got); got.Status != wire.Lease {
		return
	}
	ttl := a.ttl()
	a.change("tokens", history.Op{Kind: history.Set, TTL: ttl}, true, func(value []byte) wire.Reply {
		return a.ask(wire.Request{Op: wire.OpFill, Token: got.Token, Value: value, TTLMS: ttlMS(ttl)})
	})
}

// swap replaces the version that the app has read.
func (a *app) swap() {
	version, ttl := max(1, a.look(false).Version), a.ttl()
	a.change("swaps", history.Op{Kind: history.Set, TTL: ttl}, true, func(value []byte) wire.Reply {
		return a.set(value, wire.ModeCAS, version, ttl)
	})
}

// store stores a value, at times only if there is one, or none.
func (a *app) store() {
	mode, ttl := []wire.Mode{wire.ModeSet, wire.ModeSet, wire.ModeAdd, wire.ModeReplace}[a.rnd.IntN(4)], a.ttl()
	a.change("sets", history.Op{Kind: history.Set, TTL: ttl}, mode != wire.ModeSet, func(value []byte) wire.Reply {
		return a.set(value, mode, 0, ttl)
	})
}

// remove deletes the key, at times softly, or only the version that the app has read.
func (a *app) remove() {
	what, soft, version := "deletions", a.rnd.IntN(2) == 0, uint64(0)
	if a.rnd.IntN(3) == 0 {
		what, version = "deletions with a version", max(1, a.look(false).Version)
	}
	if soft {
		what = "soft " + what
	}
	a.change(what, history.Op{Kind: history.Delete}, version != 0, func([]byte) wire.Reply {
		return a.drop(version, soft)
	})
}

// touch gives the value another TTL, and mostly reads it in the same step.
func (a *app) touch() {
	w, ttl := a.w, time.Duration(1+a.rnd.IntN(4))*time.Second
	touch := w.begin(history.Op{Kind: history.Touch, Key: string(a.k.name), Host: a.by, TTL: ttl})
	var r wire.Reply
	if a.text && a.rnd.IntN(2) == 0 {
		r = a.talk("touch %s %d", a.k.name, ttl/time.Second)
	} else {
		read := w.begin(history.Op{Key: string(a.k.name), Host: a.by, Fresh: !a.text})
		if a.text {
			r = a.talk("gat %d %s", ttl/time.Second, a.k.name)
		} else {
			r = a.ask(wire.Request{Op: wire.OpMetaGet, Options: wire.Touch, TTLMS: ttlMS(ttl)})
		}
		a.found(read, &r)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.endLocked(touch, a.outcomeLocked(&r))
	w.seen[a.door("touches ", touch.Outcome)]++
}

// change commits a change of the key, makes it, and notes how it has ended. If the change has a
// condition, a miss refuses it, and is as true as that of a fresh read.
func (a *app) change(what string, o history.Op, conditional bool, do func(value []byte) wire.Reply) {
	w := a.w
	o.Host = a.by
	op, value := w.commit(a.k, o)
	r := do(value)
	w.mu.Lock()
	defer w.mu.Unlock()
	out := a.outcomeLocked(&r)
	missed := r.Status == wire.Miss && out == history.NotStored
	switch {
	case missed && !conditional: // there was nothing to delete
		out = history.Done
	case out != history.Done && w.fromOrigin(): // the database has it all the same
		out = history.Unknown
	}
	if out != history.Done {
		w.failed++
	}
	w.endLocked(op, out)
	if missed && conditional {
		a.k.fresh = append(a.k.fresh, history.Op{
			Key: op.Key, Host: op.Host, Fresh: true, Outcome: history.Absent, Began: op.Began, Ended: op.Ended,
		})
	}
	w.seen[a.door(what+" ", out)]++
	if r.Status == wire.OK && r.Event != 0 {
		w.seen["events of "+what]++
	}
}

// found notes what a read has found. A stale value is none.
func (a *app) found(read *history.Running, r *wire.Reply) {
	w := a.w
	w.mu.Lock()
	defer w.mu.Unlock()
	switch out := a.outcomeLocked(r); {
	case r.Status == wire.Stale:
		w.endLocked(read, history.Old)
	case out == history.Done:
		w.told(a.k, read, r.Value, nil)
	case r.Status == wire.Miss && out == history.NotStored:
		w.noteMiss(a.k, read)
		w.endLocked(read, history.Absent)
	default:
		w.endLocked(read, history.Unknown)
	}
	if w.seen[a.door("reads ", read.Outcome)]++; read.Fresh && read.Outcome <= history.Absent {
		a.k.fresh = append(a.k.fresh, read.Op)
	}
}

// outcomeLocked returns what an answer says about a change. What a process says that was killed
// meanwhile means nothing. The caller holds the world's lock.
func (a *app) outcomeLocked(r *wire.Reply) history.Outcome {
	switch r.Status {
	case wire.OK:
		return history.Done
	case wire.Miss, wire.Stale, wire.Exists, wire.NotStored, wire.Unavailable, wire.Busy:
		if a.w.runsLocked(a.by) && r.Why != wire.Degraded {
			return history.NotStored
		}
	case wire.BadRequest:
		a.w.breaks("%s says %s", a.by, r.Message)
	}
	return history.Unknown
}

// door names what is counted with its door and its outcome.
func (a *app) door(what string, out history.Outcome) string {
	if a.text {
		what = "memcached's " + what
	}
	return "doors: " + what + out.String()
}

// ttl draws a TTL in whole seconds; zero: none.
func (a *app) ttl() time.Duration {
	return time.Duration(max(0, a.rnd.IntN(8)-3)) * time.Second
}

func ttlMS(ttl time.Duration) int64 {
	if ttl == 0 {
		return wire.TTLDefault
	}
	return ttl.Milliseconds()
}

// set stores a value. With ModeCAS it compares, with a version or with the number of a claim.
func (a *app) set(value []byte, mode wire.Mode, compare uint64, ttl time.Duration) wire.Reply {
	seconds := int(ttl / time.Second)
	switch {
	case !a.text:
		return a.ask(wire.Request{Op: wire.OpSet, Mode: mode, Value: value, Compare: compare, TTLMS: ttlMS(ttl)})
	case mode != wire.ModeCAS:
		verb := map[wire.Mode]string{wire.ModeSet: "set", wire.ModeAdd: "add", wire.ModeReplace: "replace"}[mode]
		return a.talk("%s %s 0 %d 8\r\n%s", verb, a.k.name, seconds, value)
	case a.rnd.IntN(2) == 0:
		return a.talk("cas %s 0 %d 8 %d\r\n%s", a.k.name, seconds, compare, value)
	}
	return a.talk("ms %s 8 T%d C%d\r\n%s", a.k.name, seconds, compare, value)
}

// drop deletes the key; with a version other than zero only that one.
func (a *app) drop(version uint64, soft bool) wire.Reply {
	if !a.text {
		q := wire.Request{Op: wire.OpDelete, Compare: version, TTLMS: wire.TTLDefault}
		if soft {
			q.Options, q.StaleMS = wire.Soft, 3000
		}
		return a.ask(q)
	}
	flags := ""
	if version != 0 {
		flags += fmt.Sprint(" C", version)
	}
	if soft {
		flags += " I T3"
	}
	if flags == "" {
		return a.talk("delete %s", a.k.name)
	}
	return a.talk("md %s%s", a.k.name, flags)
}

// ask makes a request over the socket's protocol.
func (a *app) ask(q wire.Request) wire.Reply {
	if q.Namespace = []byte(a.w.space); q.Op == wire.OpDelete {
		q.Keys = [][]byte{a.k.name}
	} else {
		q.Key = a.k.name
	}
	r, err := a.s.execute(context.Background(), &q)
	if len(r.Items) == 1 {
		r = r.Items[0]
	} else if err != nil && r.Status == wire.OK { // the process has closed
		r.Status = wire.Unavailable
	}
	return r
}
