package sidecar

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/calls"
	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// This file has the load of the apps in a world.

// load reads and writes until ctx ends. One goroutine writes each key, ten goroutines
// read, and one flushes.
func (w *world) load(ctx context.Context, wg *sync.WaitGroup) {
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
	v := vwrite{by: by, del: rnd.IntN(4) == 0, all: rnd.IntN(8) == 0}
	if !w.ns.WriteThrough && rnd.IntN(2) == 0 { // the value expires within the run
		v.ttl = time.Duration(1+rnd.IntN(25)) * 100 * time.Millisecond
	}
	if w.fromOrigin() && rnd.IntN(5) == 0 {
		w.commit(k, v) // the cache is not told; a flush or the next write outdates it
		return
	}
	w.writeAs(s, k, v)
	inTime("a write")
	if !w.fromOrigin() && rnd.IntN(4) == 0 {
		w.touch(rnd, k, time.Duration(1+rnd.IntN(25))*100*time.Millisecond)
	}
}

// writeTo writes or deletes a key through a process, and reports whether that was
// acknowledged.
func (w *world) writeTo(s *Sidecar, by string, k *vkey, del, all bool) bool {
	return w.writeAs(s, k, vwrite{by: by, del: del, all: all})
}

// commit begins a write. If there is a database, the value is in it when commit returns.
func (w *world) commit(k *vkey, v vwrite) (n int, value []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n = len(k.writes) + 1
	value = binary.BigEndian.AppendUint64(nil, uint64(n))
	v.began, v.unknown = time.Now(), true
	if w.fromOrigin() {
		w.origin.set(string(k.name), value)
		v.committed = time.Now()
	}
	k.writes = append(k.writes, v)
	return n, value
}

func (w *world) writeAs(s *Sidecar, k *vkey, v vwrite) bool {
	if w.fromOrigin() { // an app commits first, and then invalidates
		v.del, v.ttl = true, 0
	}
	n, value := w.commit(k, v)
	var err error
	switch {
	case !v.del:
		_, err = s.Set(context.Background(), w.space, string(k.name), value, cachesidecar.SetOptions{TTL: v.ttl, AckAll: v.all})
	case v.all:
		_, err = s.DeleteMulti(context.Background(), w.space, []string{string(k.name)}, cachesidecar.DeleteOptions{AckAll: true})
	default:
		_, err = s.DeleteMulti(context.Background(), w.space, []string{string(k.name)}, cachesidecar.DeleteOptions{})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.failed++
		return false // the outcome is unknown: the process may have been killed
	}
	k.writes[n-1].unknown = false
	if v.all {
		w.seen["acknowledged by all"]++
	}
	k.writes[n-1].acked = time.Now()
	return true
}

// touch gives the value of a key another TTL.
func (w *world) touch(rnd *rand.Rand, k *vkey, ttl time.Duration) {
	s, by, inTime := w.any(rnd)
	if s == nil {
		return
	}
	defer inTime("a TOUCH")
	w.mu.Lock()
	i := len(k.touches)
	k.touches = append(k.touches, vtouch{after: len(k.writes), by: by, ttl: ttl})
	w.mu.Unlock()
	err := s.Touch(context.Background(), w.space, string(k.name), cachesidecar.TouchOptions{TTL: ttl})
	w.mu.Lock()
	switch {
	case err == nil:
		w.seen["touched"]++
		k.touches[i].acked = time.Now()
	case errors.Is(err, cachesidecar.ErrNotFound):
		k.touches = k.touches[:i]
	}
	w.mu.Unlock()
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
			_ = s.Flush(ctx, w.space, cachesidecar.FlushOptions{}) // one host only: promises nothing of others
		default:
			w.flush(s, by, rnd.IntN(2) == 0)
		}
	}
}

// flush empties the keys' namespace, or all namespaces, on all hosts. It reports whether
// that was acknowledged.
func (w *world) flush(s *Sidecar, by string, all bool) bool {
	f, done := vflush{began: time.Now(), by: by}, func(error) {}
	q := &wire.Request{Op: wire.OpFlush, Namespace: []byte(w.space), Options: wire.Cluster}
	if all {
		q.Options |= wire.All
		done = w.flushTallied(by)
	}
	r := served(s, q)
	done(calls.Err(&r))
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.Status != wire.OK {
		w.seen["flushes refused"]++
		return false
	}
	w.seen["flushes"]++
	f.acked = time.Now()
	w.flushes = append(w.flushes, f)
	return true
}

// served answers a request that a session does not answer in place.
func served(s *Sidecar, q *wire.Request) wire.Reply {
	if !s.enter() {
		return wire.Reply{Status: wire.Unavailable}
	}
	defer s.inUse.Done()
	b := namespaces.Pins{Table: s.engine.Names}
	defer b.Release()
	now := s.engine.Clock.Read()
	s.engine.Node.CheckPause(now.Boot)
	return s.serve(context.Background(), q, &b, s.engine.Deadlines.Of(q, now))
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
	read := vread{began: time.Now(), by: by}
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
	read := vread{began: time.Now(), by: by}
	q := &wire.Request{Op: wire.OpMGet, Namespace: []byte(w.space), TTLMS: wire.TTLDefault}
	for _, k := range keys {
		q.Keys = append(q.Keys, k.name)
	}
	r := served(s, q)
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.Status != wire.OK {
		if r.Status != wire.Unavailable {
			w.breaks("a read of several keys through %s: %v", by, calls.Err(&r))
		}
		return
	}
	for i, k := range keys {
		w.told(k, read, r.Items[i].Value, calls.Err(&r.Items[i]))
	}
	w.seen["reads of several"]++
}

// told checks the answer to a read. The caller holds the lock.
func (w *world) told(k *vkey, read vread, value []byte, err error) int {
	switch {
	case errors.Is(err, cachesidecar.ErrNotFound):
		w.noteMiss(k, read)
		return 0
	case errors.Is(err, cachesidecar.ErrClosed), w.origin != nil && err != nil: // closed, or a load that was too slow or shed
		return 0
	case err != nil:
		w.breaks("a read of %s through %s: %v", k.name, read.by, err)
		return 0
	}
	w.hits++
	n := int(binary.BigEndian.Uint64(value))
	if wrong := w.judge(k, n, read); wrong != "" {
		w.breaks("%s", wrong)
	}
	return n
}

// lease reads a key as an app does that loads missing values itself.
func (w *world) lease(ctx context.Context, s *Sidecar, k *vkey) ([]byte, error) {
	r, err := s.ask(ctx, &wire.Request{Op: wire.OpLease, Namespace: []byte(w.space), Key: k.name, TTLMS: wire.TTLDefault})
	if r.Status == wire.Lease || engine.Degraded(&r) {
		v, err := w.origin.Load(ctx, k.name)
		if r.Status != wire.Lease || err != nil {
			return v.Bytes, err
		}
		filled, err := s.ask(ctx, &wire.Request{Op: wire.OpFill, Namespace: []byte(w.space), Key: k.name, Token: r.Token, Value: v.Bytes, TTLMS: wire.TTLDefault})
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
	began := time.Now()
	r, err := s.ask(context.Background(), &wire.Request{Op: wire.OpGet, Namespace: []byte(w.space), Key: k.name, TTLMS: wire.TTLDefault, Options: wire.Fresh})
	inTime("a fresh read")
	w.mu.Lock()
	defer w.mu.Unlock()
	f := freshRead{began: began, ended: time.Now()}
	switch {
	case err == nil:
		f.got = w.told(k, vread{began: began, by: by, fresh: true}, r.Value, nil)
	case !errors.Is(err, cachesidecar.ErrNotFound) || r.Why == wire.Degraded:
		return
	}
	k.fresh = append(k.fresh, f)
}
