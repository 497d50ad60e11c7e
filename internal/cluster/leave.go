package cluster

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// departure takes this node out of the cluster in order: it hands over what the node
// owns, and says goodbye. A handover may also be all: then the node stays, drained, until
// the handover is taken back.
type departure struct {
	cfg       *Config
	driver    *driver
	pool      *peer.Pool
	flusher   *flusher
	report    *reporter
	leaveTime atomic.Int64 // limits a handover: see Node.SetLeaveTime
	awaited   bool         // the other voters were waited for; of the goroutine that ends the node
}

// Limits of what a leave waits for, except of the handover.
const (
	waitsWithin    = 10 * time.Second // each of: the cluster, the voters, what others must still hear
	goodbyeTimeout = 500 * time.Millisecond
)

// drain hands over what this node owns, and waits until that is done or ctx ends. If a
// handover is under way or done, drain waits for that one. Unless forced, it returns
// ErrNoHeir if no other node could take anything over. A node that is alone for good keeps
// what it owns also if forced: no other node could ever own it.
func (dp *departure) drain(ctx context.Context, force bool) (HandedOver, error) {
	if force && dp.cfg.Bind == "" {
		n := dp.driver.owned().Len()
		return HandedOver{Owned: n, Kept: n}, nil
	}
	h := dp.beginHandover(force)
	if h == nil {
		return HandedOver{}, ErrNoHeir
	}
	select {
	case <-h.over:
	case <-ctx.Done():
		return HandedOver{}, ctx.Err()
	}
	if h.undone {
		return HandedOver{}, ErrUndone
	}
	return h.HandedOver, nil
}

// awaitIn waits until this node is in the cluster, so that it knows the others, for
// waitsWithin at most. It does not wait if that needs an operator. It returns an error if
// the node ends, ctx ends, or the drain is taken back meanwhile: then nothing has begun.
func (dp *departure) awaitIn(ctx context.Context) (err error) {
	within, cancel := context.WithTimeout(ctx, waitsWithin)
	defer cancel()
	undone := 0
	dp.driver.withState(func(s *state) { s.drain.waiting, undone = s.drain.waiting+1, s.drain.undone })
	for wait := true; wait; wait = wait && kv.Sleep(within, 10*time.Millisecond) {
		dp.driver.step(func(s *state, _ time.Duration) {
			switch {
			case s.drain.undone != undone:
				err = ErrUndone
			case dp.cfg.Bind == "", s.machine.In(), s.outcast() != "":
			case s.drain.stopping:
				err = ErrStopping
			default:
				return
			}
			wait = false
		})
	}
	dp.driver.withState(func(s *state) { s.drain.waiting-- })
	if err == nil && ctx.Err() != nil {
		err = ErrNotIn
	}
	return err
}

// undrain takes a handover back: this node owns its part of the keys again, once others
// have all that it has given up. undrain does not wait for that. It reports whether the
// node was drained. It returns ErrStopping if the node is about to end.
func (dp *departure) undrain() (was bool, err error) {
	begins := false
	dp.driver.step(func(s *state, now time.Duration) {
		h := s.drain.present
		switch {
		case s.drain.stopping:
			err = ErrStopping
		case h == nil:
			was = s.drain.waiting > 0
			s.drain.undone++
		default:
			was, begins, h.returns = true, !h.returns, true
			h.finish(func() { h.undone = true })
			if ctx := s.running.ctx; ctx == nil {
				s.comeBack(h, now)
			} else if begins {
				s.running.tasks.Go(func() {
					dp.awaitHeirs(ctx, nil) // an ownership begins with none of this node's own former entries
					dp.driver.step(func(s *state, now time.Duration) { s.comeBack(h, now) })
				})
			}
		}
	})
	if begins {
		dp.cfg.Log.Info("the drain is undone: this host takes its keys again once the others have what it gave up")
	}
	return was, err
}

// comeBack lets this node own its part of the keys again, unless another handover has
// begun, or the node ends.
func (s *state) comeBack(h *handover, now time.Duration) {
	if s.drain.present == h && !s.drain.stopping {
		s.drain.present = nil
		s.machine.Stay(now)
	}
}

// beginHandover begins a handover, unless one is there. It returns nil if there is no heir and
// force is not set.
func (dp *departure) beginHandover(force bool) (h *handover) {
	begins := false
	dp.driver.step(func(s *state, now time.Duration) {
		m := s.machine
		heirs := m.Heirs()
		if h = s.drain.present; h != nil && !h.returns {
			return
		}
		if h = nil; !heirs && !force {
			return
		}
		begins, h = true, &handover{begun: now, over: make(chan struct{}), HandedOver: HandedOver{Owned: m.Unended()}}
		s.drain.present = h
		m.Leave(now)
		if ctx := s.running.ctx; heirs && ctx != nil {
			s.running.tasks.Go(func() { dp.follow(ctx, h) }) // ends with the handover, or with Run
			return
		}
		m.Abandon(now)
		h.finish(func() { h.Kept = h.Owned })
	})
	if begins {
		dp.cfg.Log.Info("draining: this host hands over what it owns", "partitions", h.Owned)
	}
	return h
}

// follow ends a handover once others have everything.
func (dp *departure) follow(ctx context.Context, h *handover) {
	dp.awaitHeirs(ctx, h.over)
	dp.driver.withState(func(s *state) {
		h.finish(func() {
			h.Kept, h.Took = s.machine.Unended(), dp.cfg.Clock.Read().Boot-h.begun
			dp.report.handedOver(h, s.machine.Heirs(), len(s.members.alive()) > 0 && dp.cfg.Delegate.Awaited())
		})
	})
}

// awaitHeirs waits until others own all that this node gives up, have fetched the entries,
// and know how write-throughs have ended; for the leave time at most, not after over, and not once all others
// leave too: nobody will take anything then.
func (dp *departure) awaitHeirs(ctx context.Context, over <-chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(dp.leaveTime.Load()))
	defer cancel()
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	kept, hopes := 0, false // ownerships that have not ended; another node takes over, or may soon
	for done := false; !done; {
		select {
		case <-over:
			return
		case <-ctx.Done():
			return
		case <-t.C:
			dp.driver.step(func(s *state, _ time.Duration) { kept, hopes = s.machine.Unended(), s.machine.Hopes() })
			done = kept == 0 && !dp.cfg.Delegate.Awaited() || !hopes
		}
	}
}

// handOver hands over what this node owns before it ends. There is no way back. A node
// without an heir hands over nothing, and owns what it owns until the end.
func (dp *departure) handOver(ctx context.Context) {
	dp.driver.withState(func(s *state) { s.drain.stopping = true })
	dp.cfg.Delegate.Exiting()
	_, _ = dp.drain(ctx, false) // the log has it
}

// leave hands over what this node owns, unless that is done. It lets the tiers finish
// what other nodes wait for, and says goodbye.
func (dp *departure) leave(ctx context.Context) {
	if !dp.awaited {
		dp.awaitVoters(ctx)
	}
	dp.handOver(ctx)
	ctx, cancel := context.WithTimeout(ctx, waitsWithin)
	defer cancel()
	for len(dp.driver.live()) > 0 && dp.cfg.Delegate.Awaited() && kv.Sleep(ctx, 10*time.Millisecond) {
	}
	owned := dp.driver.owned().Len()
	dp.sayGoodbye()
	dp.report.hostLeft(owned)
}

// awaitVoters waits until the other voters can do without this one. A voter that was
// started lately does not vote yet. awaitVoters does not wait for voters that do not
// answer.
func (dp *departure) awaitVoters(ctx context.Context) {
	dp.awaited = true
	ctx, cancel := context.WithTimeout(ctx, waitsWithin)
	defer cancel()
	for slices.Contains(dp.cfg.Voters, string(dp.cfg.Self.Node)) {
		var ids []kv.Process
		dp.driver.step(func(s *state, _ time.Duration) { ids = s.machine.Live() })
		var answer, vote atomic.Int32
		var wg sync.WaitGroup
		for _, id := range ids {
			if id == dp.cfg.Self || !slices.Contains(dp.cfg.Voters, string(id.Node)) {
				continue
			}
			wg.Go(func() {
				a, err := dp.flusher.noteAt(ctx, id, wire.Floor{}) // notes nothing
				if err != nil {
					return
				}
				if answer.Add(1); a.Voter {
					vote.Add(1)
				}
			})
		}
		wg.Wait()
		need := int32(dp.cfg.majority())
		if answer.Load() < need || vote.Load() >= need || !kv.Sleep(ctx, dp.cfg.Bound/16) {
			return
		}
	}
}

// sayGoodbye tells all members that this process owns nothing and is gone.
func (dp *departure) sayGoodbye() {
	var to []kv.Process
	dp.driver.withState(func(s *state) {
		s.machine.Stop(dp.cfg.Clock.Read().Boot)
		s.carryOut()
		to = s.members.alive()
	})
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeTimeout)
	defer cancel()
	goodbye := &wire.Goodbye{From: dp.cfg.Self}
	var wg sync.WaitGroup
	for _, id := range to {
		wg.Go(func() {
			if err := dp.pool.Ask(ctx, id, goodbyeTimeout, wire.OpGoodbye, goodbye, nil); err != nil {
				dp.cfg.Log.Debug("no goodbye", "to", id.Node, "error", err)
			}
		})
	}
	wg.Wait()
}
