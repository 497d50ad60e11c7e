package hosts

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/calls"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/history"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// This file has the load of the apps in a world.

// load reads and writes until ctx ends. One goroutine writes each key, ten goroutines
// read, and one flushes.
func (w *world) load(ctx context.Context, wg *sync.WaitGroup) {
	w.shareMemory()
	for i, k := range w.keys {
		rnd := rand.New(rand.NewPCG(w.seed, uint64(100+i)))
		wg.Go(func() {
			for ctx.Err() == nil {
				w.write(rnd, k)
				pauseFor(ctx, time.Duration(50+rnd.IntN(1500))*time.Millisecond)
			}
		})
	}
	for i := range 10 {
		rnd := rand.New(rand.NewPCG(w.seed, uint64(1000+i)))
		wg.Go(func() {
			for ctx.Err() == nil {
				w.read(rnd, w.keys[rnd.IntN(len(w.keys))])
				pauseFor(ctx, time.Duration(rnd.IntN(20))*time.Millisecond)
			}
		})
	}
	wg.Go(func() { w.flushAtTimes(ctx) })
}

func (w *world) write(rnd *rand.Rand, k *vkey) {
	s, by, inTime := w.any(rnd)
	if s == nil {
		return
	}
	o := history.Op{Kind: history.Set, Host: by}
	if rnd.IntN(4) == 0 {
		o.Kind = history.Delete
	}
	o.All = rnd.IntN(8) == 0
	if !w.ns.WriteThrough && rnd.IntN(2) == 0 { // the value expires within the run
		o.TTL = time.Duration(1+rnd.IntN(25)) * 100 * time.Millisecond
	}
	if w.fromOrigin() && rnd.IntN(5) == 0 {
		w.commit(k, o) // the cache is not told; a flush or the next write outdates it
		return
	}
	w.writeAs(s, k, o)
	inTime("a write")
	if !w.fromOrigin() && rnd.IntN(4) == 0 {
		w.touch(rnd, k, time.Duration(1+rnd.IntN(25))*100*time.Millisecond)
	}
}

// writeTo writes or deletes a key through a process, and reports whether that was
// acknowledged.
func (w *world) writeTo(s *Sidecar, by string, k *vkey, del, all bool) bool {
	o := history.Op{Kind: history.Set, Host: by, All: all}
	if del {
		o.Kind = history.Delete
	}
	return w.writeAs(s, k, o)
}

// commit begins a write. If there is a database, the value is in it when commit returns.
func (w *world) commit(k *vkey, o history.Op) (r *history.Running, value []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o.Key, o.Number = string(k.name), int64(len(k.writes)+1)
	value = binary.BigEndian.AppendUint64(nil, uint64(o.Number))
	o.Origin = w.origin != nil
	if w.fromOrigin() { // an app commits first, and then invalidates
		w.origin.set(string(k.name), value)
		if o.Kind, o.TTL = history.Set, 0; w.ns.DefaultTTL != nil {
			o.TTL = *w.ns.DefaultTTL * 11 / 10
		}
	}
	r = w.beginLocked(o)
	k.writes = append(k.writes, r)
	return r, value
}

func (w *world) writeAs(s *Sidecar, k *vkey, o history.Op) bool {
	r, value := w.commit(k, o)
	var err error
	if o.Kind == history.Delete || w.fromOrigin() {
		_, err = s.DeleteMulti(context.Background(), w.space, []string{string(k.name)}, cachesidecar.DeleteOptions{AckAll: o.All})
	} else {
		_, err = s.Set(context.Background(), w.space, string(k.name), value, cachesidecar.SetOptions{TTL: o.TTL, AckAll: o.All})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.failed++
		w.endLocked(r, history.Unknown) // the process may have been killed
		return false
	}
	if o.All {
		w.seen["acknowledged by all"]++
	}
	w.endLocked(r, history.Done)
	return true
}

// touch gives the value of a key another TTL.
func (w *world) touch(rnd *rand.Rand, k *vkey, ttl time.Duration) {
	s, by, inTime := w.any(rnd)
	if s == nil {
		return
	}
	defer inTime("a TOUCH")
	r := w.begin(history.Op{Kind: history.Touch, Key: string(k.name), Host: by, TTL: ttl})
	err := s.Touch(context.Background(), w.space, string(k.name), cachesidecar.TouchOptions{TTL: ttl})
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil:
		w.seen["touched"]++
		w.endLocked(r, history.Done)
	case errors.Is(err, cachesidecar.ErrNotFound):
		w.endLocked(r, history.Absent)
	default:
		w.endLocked(r, history.Unknown)
	}
}

// flushAtTimes flushes all hosts, and sometimes one host, again and again until ctx ends.
func (w *world) flushAtTimes(ctx context.Context) {
	rnd := rand.New(rand.NewPCG(w.seed, 97))
	for ctx.Err() == nil {
		pauseFor(ctx, time.Duration(rnd.IntN(6000))*time.Millisecond)
		s, by, _ := w.any(rnd)
		switch {
		case s == nil:
		case rnd.IntN(8) == 0:
			_ = s.Flush(ctx, w.space, cachesidecar.FlushOptions{Local: true}) // one host only: promises nothing of others
		default:
			w.flush(s, by, rnd.IntN(2) == 0)
		}
	}
}

// flush empties the keys' namespace, or all namespaces, on all hosts. It reports whether
// that was acknowledged.
func (w *world) flush(s *Sidecar, by string, all bool) bool {
	f, done := w.begin(history.Op{Kind: history.Flush, Host: by}), func(int64, error) {}
	q := &wire.Request{Op: wire.OpFlush, Namespace: []byte(w.space), Options: wire.Cluster}
	if all {
		q.Options |= wire.All
		done = w.begins(history.Op{Kind: history.Flush, Host: by})
	}
	r := served(s, q)
	done(0, calls.Err(&r))
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.Status != wire.OK {
		w.seen["flushes refused"]++
		w.endLocked(f, history.Unknown)
		return false
	}
	w.seen["flushes"]++
	w.endLocked(f, history.Done)
	return true
}

// served answers a request that a session does not answer in place.
func served(s *Sidecar, q *wire.Request) wire.Reply {
	leave, open := s.parts.Host.Enter()
	if !open {
		return wire.Reply{Status: wire.Unavailable}
	}
	defer leave()
	b := namespaces.Pins{Table: s.engine.Namespaces}
	defer b.Release()
	now := s.engine.Clock.Read()
	s.engine.Node.CheckPause(now.Boot)
	return s.engine.Serve(context.Background(), q, &b, s.engine.Deadlines.Of(q, now))
}

func (w *world) read(rnd *rand.Rand, k *vkey) {
	w.readByMemory(rnd, k)
	s, by, inTime := w.any(rnd)
	if s == nil {
		return
	}
	if !w.apps && rnd.IntN(8) == 0 {
		w.readSome(s, by, w.keys[:min(len(w.keys), 4)])
	} else {
		w.readFrom(context.Background(), s, by, k)
	}
	inTime("a read")
}

// readFrom reads a key through a process and checks the answer. It returns the number of
// the write that was read; zero: a miss, or no answer.
func (w *world) readFrom(ctx context.Context, s *Sidecar, by string, k *vkey) int {
	read := w.begin(history.Op{Key: string(k.name), Host: by})
	var got cachesidecar.Item
	var err error
	if w.apps {
		got.Value, err = w.lease(ctx, s, k)
	} else {
		got, err = s.Get(ctx, w.space, string(k.name), cachesidecar.GetOptions{})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.told(k, read, got.Value, err)
}

// readSome reads several keys in one request.
func (w *world) readSome(s *Sidecar, by string, keys []*vkey) {
	var reads []*history.Running
	q := &wire.Request{Op: wire.OpMGet, Namespace: []byte(w.space), TTLMS: wire.TTLDefault}
	for _, k := range keys {
		reads = append(reads, w.begin(history.Op{Key: string(k.name), Host: by}))
		q.Keys = append(q.Keys, k.name)
	}
	r := served(s, q)
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.Status != wire.OK {
		if r.Status != wire.Unavailable {
			w.breaks("a read of several keys through %s: %v", by, calls.Err(&r))
		}
		for _, read := range reads {
			w.endLocked(read, history.Unknown)
		}
		return
	}
	for i, k := range keys {
		w.told(k, reads[i], r.Items[i].Value, calls.Err(&r.Items[i]))
	}
	w.seen["reads of several"]++
}

// told checks the answer to a read. The caller holds the lock.
func (w *world) told(k *vkey, read *history.Running, value []byte, err error) int {
	out := history.Unknown
	switch {
	case errors.Is(err, cachesidecar.ErrNotFound):
		w.noteMiss(k, read)
		out = history.Absent
	case errors.Is(err, cachesidecar.ErrClosed), w.origin != nil && err != nil: // closed, or a load that was too slow or shed
	case err != nil:
		w.breaks("a read of %s through %s: %v", k.name, read.Host, err)
	default:
		w.hits++
		out, read.Number = history.Done, int64(binary.BigEndian.Uint64(value))
	}
	w.endLocked(read, out)
	return int(read.Number)
}

// lease reads a key as an app does that loads missing values itself.
func (w *world) lease(ctx context.Context, s *Sidecar, k *vkey) ([]byte, error) {
	r, err := s.execute(ctx, &wire.Request{Op: wire.OpLease, Namespace: []byte(w.space), Key: k.name, TTLMS: wire.TTLDefault})
	if r.Status == wire.Lease || r.Status == wire.Miss && r.Why == wire.Degraded {
		v, err := w.origin.Load(ctx, k.name)
		if r.Status != wire.Lease || err != nil {
			return v.Bytes, err
		}
		filled, err := s.execute(ctx, &wire.Request{Op: wire.OpFill, Namespace: []byte(w.space), Key: k.name, Token: r.Token, Value: v.Bytes, TTLMS: wire.TTLDefault})
		w.mu.Lock()
		defer w.mu.Unlock()
		switch {
		case err == nil:
			w.seen["fills"]++
		case filled.Status == wire.NotStored:
			w.seen["fills not stored"]++
		}
		return v.Bytes, nil
	}
	return r.Value, err
}

// readFresh reads a key from its owner.
func (w *world) readFresh(rnd *rand.Rand, k *vkey) {
	s, by, inTime := w.any(rnd)
	if s == nil {
		return
	}
	read := w.begin(history.Op{Key: string(k.name), Host: by, Fresh: true})
	r, err := s.execute(context.Background(), &wire.Request{Op: wire.OpGet, Namespace: []byte(w.space), Key: k.name, TTLMS: wire.TTLDefault, Options: wire.Fresh})
	inTime("a fresh read")
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil:
		w.told(k, read, r.Value, nil)
	case errors.Is(err, cachesidecar.ErrNotFound) && r.Why != wire.Degraded:
		w.endLocked(read, history.Absent)
	default:
		w.endLocked(read, history.Unknown)
		return
	}
	k.fresh = append(k.fresh, read.Op)
}
