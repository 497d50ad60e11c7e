package cluster

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// departure takes this node out of the cluster in order. It has no state; it takes the
// driver's lock.
type departure struct {
	cfg     *Config
	driver  *driver
	caller  *caller
	flusher *flusher
	report  *reporter
}

const goodbyeTimeout = 500 * time.Millisecond

// leave hands over what this node owns, as far as other nodes take it in time. It lets
// the tiers finish what other nodes wait for, and says goodbye.
func (l *departure) leave(ctx context.Context) {
	l.awaitVoters(ctx)
	begun, owned := l.cfg.Clock.Read().Boot, l.driver.owned().Len()
	l.driver.step((*ownership.Machine).Leave)
	ctx, cancel := context.WithTimeout(ctx, l.cfg.LeaveTimeout)
	defer cancel()
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for ctx.Err() == nil && l.others() > 0 {
		l.driver.mu.Lock()
		kept := l.driver.machine.Unended()
		l.driver.mu.Unlock()
		if kept == 0 && !l.cfg.Tiers.Awaited() {
			break
		}
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
	l.driver.mu.Lock()
	kept := l.driver.machine.Unended()
	l.driver.mu.Unlock()
	l.report.left(owned, kept, l.others(), l.cfg.Clock.Read().Boot-begun)
	l.sayGoodbye()
}

// others returns the number of live members, without this node.
func (l *departure) others() int {
	l.driver.mu.Lock()
	defer l.driver.mu.Unlock()
	return len(l.driver.members.alive())
}

// awaitVoters waits until the other voters can do without this one. A voter that was
// started lately does not vote yet. awaitVoters does not wait for voters that do not
// answer.
func (l *departure) awaitVoters(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.LeaveTimeout)
	defer cancel()
	for slices.Contains(l.cfg.Voters, string(l.cfg.Self.Node)) {
		var ids []kv.Process
		l.driver.step(func(m *ownership.Machine, _ time.Duration) { ids = m.Live() })
		var answer, vote atomic.Int32
		var wg sync.WaitGroup
		for _, id := range ids {
			if id == l.cfg.Self || !slices.Contains(l.cfg.Voters, string(id.Node)) {
				continue
			}
			wg.Go(func() {
				a, err := l.flusher.noteAt(ctx, id, wire.Floor{}) // notes nothing
				if err != nil {
					return
				}
				if answer.Add(1); a.Voter {
					vote.Add(1)
				}
			})
		}
		wg.Wait()
		need := int32(l.cfg.majority())
		if answer.Load() < need || vote.Load() >= need || !kv.Sleep(ctx, l.cfg.Bound/16) {
			return
		}
	}
}

// sayGoodbye tells all members that this process owns nothing and is gone.
func (l *departure) sayGoodbye() {
	l.driver.mu.Lock()
	l.driver.machine.Stop(l.cfg.Clock.Read().Boot)
	l.driver.carryOut()
	to := l.driver.members.alive()
	l.driver.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeTimeout)
	defer cancel()
	body, err := wire.MarshalBody(&wire.Goodbye{From: toProcess(l.cfg.Self)})
	if err != nil {
		l.cfg.Log.Error("goodbye", "error", err)
		return
	}
	var wg sync.WaitGroup
	for _, id := range to {
		wg.Go(func() {
			if err := l.caller.call(ctx, id, goodbyeTimeout, wire.OpGoodbye, body, nil); err != nil {
				l.cfg.Log.Debug("no goodbye", "to", id.Node, "error", err)
			}
		})
	}
	wg.Wait()
}
