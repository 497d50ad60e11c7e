package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
)

// following follows the logs of the other nodes: it asks each for the events after the
// last one that it has applied, and moves the leases. The answer waits until there is an
// event. So there is no queue per follower, and a slow follower just asks later. The
// answers travel with the polls, on a connection that carries no values.
//
// Under load several such requests wait at the other process, one for each answer. They
// are sent in one write; otherwise each answer would cost a message of its own to ask
// for the next.
//
// following has no lock of its own. Events are applied without the driver's lock; one
// goroutine for each process applies its events.
type following struct {
	cfg       *Config
	pool      *peer.Pool
	driver    *driver
	admission *admission
	report    *reporter
	counts    *counts
}

// Limits of the calls.
const (
	maxAsked     = 16                    // calls in flight
	busyWithin   = 2 * time.Millisecond  // load: the next answer comes this soon
	followFailed = 20 * time.Millisecond // pause before it asks again
	maxIdleFrame = 4 << 10               // bytes of the buffer that is kept for the next answer
)

var (
	errSkewed = errors.New("its clock is off")
	errGap    = errors.New("events are missing")
)

// follow applies the events that another process appends to its log, until ctx ends.
func (fw *following) follow(ctx context.Context, id kv.Process) {
	for ctx.Err() == nil {
		err := fw.followOn(ctx, id)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, rpc.ErrRetiring): // there is another connection
			continue
		case err != nil:
			fw.cfg.Log.Debug("a log cannot be followed", "node", id.Node, "error", err)
		}
		kv.Sleep(ctx, followFailed)
	}
}

// followOn follows a log from the last applied event. It returns when something is
// wrong; the caller must then start again. Calls in flight are given up.
func (fw *following) followOn(ctx context.Context, id kv.Process) error {
	l := &followedLog{f: fw, id: id, came: make(chan *followed, maxAsked)}
	l.timeout = fw.cfg.followWait() + fw.cfg.Bound/2
	var err error
	if l.c, _, err = fw.pool.Connect(ctx, id, peer.Poll, l.timeout); err != nil {
		return err
	}
	if err := l.sendFollows(1, true); err != nil {
		return err
	}
	window, last := 1, fw.cfg.Clock.Read().Boot
	for {
		var answer *followed
		select {
		case answer = <-l.came:
		case <-ctx.Done():
			return ctx.Err()
		}
		w, err := fw.apply(id, answer)
		if err != nil {
			return err
		}
		l.takeBack(answer)
		now := fw.cfg.Clock.Read().Boot
		if w.Events.Len() > 0 && now-last < busyWithin {
			window = min(2*window, maxAsked)
		} else {
			window = 1
		}
		last = now
		switch {
		case l.waiting <= window/2:
			err = l.sendFollows(window-l.waiting, false)
		case w.Tell:
			err = l.sendFollows(1, false)
		case l.c.Retiring():
			err = rpc.ErrRetiring
		}
		if err != nil {
			return err
		}
	}
}

// followedLog has the FOLLOWs of one log that are in flight. One goroutine uses it.
type followedLog struct {
	f       *following
	id      kv.Process
	c       *rpc.Client
	timeout time.Duration
	came    chan *followed // in the order of the answers
	idle    []*followed
	waiting int // calls without an answer yet
}

// followed is an answer to FOLLOW, or a call that waits for one.
type followed struct {
	sent  int64 // wall clock, ms
	frame []byte
	err   error
	came  chan<- *followed // has room for all calls in flight
}

// Answered passes the answer to the goroutine that applies answers, in the order of
// their arrival.
func (fd *followed) Answered(_ *transport.Answers, frame []byte, err error) {
	fd.frame, fd.err = append(fd.frame[:0], frame...), err
	fd.came <- fd
}

// sendFollows sends calls in one write. At most maxAsked are in flight.
func (l *followedLog) sendFollows(calls int, anew bool) error {
	cfg := l.f.cfg
	body := wire.MarshalBody(&wire.Follow{
		Applied: l.f.driver.hostOf(l.id).log.Applied(), WaitMS: uint32(cfg.followWait().Milliseconds()), Anew: anew,
	})
	sent := cfg.Clock.Read().Wall
	for range calls {
		call := &followed{came: l.came}
		if last := len(l.idle) - 1; last >= 0 {
			call, l.idle = l.idle[last], l.idle[:last]
		}
		call.sent = sent
		q := wire.Request{Op: wire.OpFollow, Body: body, TimeoutMS: uint32(l.timeout.Milliseconds())}
		if err := l.c.Start(&q, l.timeout, call); err != nil {
			return err
		}
		l.waiting++
	}
	l.c.Flush()
	return nil
}

// takeBack takes a call back after its answer was applied.
func (l *followedLog) takeBack(call *followed) {
	l.waiting--
	if cap(call.frame) > maxIdleFrame {
		call.frame = nil
	}
	l.idle = append(l.idle, call)
}

// apply applies an answer. If it returns an error, the answer does not count.
func (fw *following) apply(id kv.Process, answer *followed) (w wire.Followed, err error) {
	body, err := answer.body()
	if err != nil {
		return w, err
	}
	if err := wire.UnmarshalBody(body, &w); err != nil {
		fw.report.eventsUnreadable(id.Node, err)
		return w, err
	}
	if fw.admission.skewed(id, w.WallMS, answer.sent) || fw.admission.ahead(id, w.NewestVersion()) {
		return w, errSkewed
	}
	o := fw.driver.hostOf(id)
	fw.cfg.Versions.Observe(kv.Version(w.Clock))
	if w.Reset {
		return w, fw.reset(o, &w)
	}
	events, err := fromEvents(&w.Events)
	gap := w.After != o.log.Applied() && !failpoint.Out(failpoint.Gap)
	if err != nil || w.After+uint64(len(events)) != w.To || gap {
		fw.counts.gaps.Add(1)
		if err != nil {
			fw.report.eventsUnreadable(id.Node, err)
		} else if fw.report.due("gap", id.Node) {
			fw.cfg.Log.Warn("changes of a host are missing: all that it owns is read anew",
				"node", id.Node, "after", w.After, "to", w.To, "events", len(events))
		}
		return w, errGap
	}
	if len(events) > 0 {
		fw.cfg.Delegate.Apply(id, w.After, events)
		fw.counts.applied.Add(int64(len(events)))
		waited := kv.Version(w.Clock).Wall().Sub(events[0].Version.Wall())
		fw.counts.lag.Store(int64(max(0, waited)))
	}
	lease, ok := o.log.Advance(w.After, w.To)
	fw.setLeased(o, lease)
	if !ok {
		return w, errGap
	}
	return w, nil
}

// body returns the body of an answer.
func (fd *followed) body() ([]byte, error) {
	if fd.err != nil {
		return nil, fd.err
	}
	var r wire.Reply
	if err := wire.DecodeReply(wire.OpFollow, fd.frame, &r); err != nil {
		return nil, err
	}
	return r.Body, r.Err()
}

// reset applies an answer that stands for lost events.
func (fw *following) reset(o *Host, w *wire.Followed) error {
	var marks []invalidation.Mark
	if err := wire.EachMark(w.Marks, func(p uint16, changed, raised uint64) {
		if p < kv.Partitions {
			marks = append(marks, invalidation.Mark{Partition: p, Changed: changed, Raised: raised})
		}
	}); err != nil {
		fw.report.eventsUnreadable(o.Node, err)
		return err
	}
	fw.counts.resets.Add(1)
	fw.cfg.Log.Debug("a place in a log is gone: all that may have changed since is dropped",
		"node", o.Node, "partitions", len(marks))
	fw.cfg.Delegate.Reset(o.Process, marks, w.Floors, kv.Version(w.Clock))
	fw.setLeased(o, o.log.Reset(w.To))
	return nil
}

// setLeased records that everything in an owner's log up to a moment has been applied.
func (fw *following) setLeased(o *Host, at time.Duration) {
	if at == 0 || !later(&o.leasedAt, at) {
		return
	}
	fw.cfg.Mirror.Leased(o, at)
	fw.driver.stepAbout(o.Process, func(s *state, now time.Duration) { s.machine.Leased(now, o.Process, at) })
}
