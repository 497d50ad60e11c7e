package sidecar

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/session"
)

// moveOn is how long apps have to move on once they are told that the socket closes: to
// get the answers that are on their way, and to fill what they have been given tokens
// for.
const moveOn = 2 * time.Second

// ending takes a sidecar out of service, step by step, each of which the log has.
type ending struct {
	engine   *engine.Engine
	sessions *session.Sessions
	log      *slog.Logger
	begun    chan struct{} // closed when Run begins to end

	mu     sync.Mutex
	cancel func()      // makes Run end; nil before it
	late   *time.Timer // see endWrites; nil before the end
}

// starts returns the context of a Run, whose end begins the end.
func (e *ending) starts(ctx context.Context) (own context.Context, stop func()) {
	own, cancel := context.WithCancel(ctx)
	e.mu.Lock()
	e.cancel = cancel
	e.mu.Unlock()
	forget := context.AfterFunc(own, func() { close(e.begun) })
	return own, func() {
		if !forget() { // ctx has ended: begun is closed before Run returns, however fast that is
			<-e.begun
		}
		cancel()
	}
}

// stopRun makes Run end as if its context had ended.
func (e *ending) stopRun() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cancel != nil {
		e.cancel()
	}
}

// depart takes this host out of the cluster while the socket still serves.
func (e *ending) depart(ctx context.Context) {
	e.log.Info("stopping: this host leaves the cluster first, and serves its apps meanwhile")
	e.engine.Node.AwaitVoters(ctx)
	e.endWrites()
	defer e.engine.Admin.LogHandover()()
	e.engine.Node.HandOver(ctx)
}

// leave ends what runs the cluster's node, which says goodbye. Writes to origins end before that.
func (e *ending) leave(cluster *layer) error {
	defer e.endWrites().Stop()
	e.late.Reset(writesEndAfter)
	cluster.stop()
	return cluster.Wait()
}

// goaway tells apps to move on, and waits until they have, once no new connections are
// accepted. Then it answers the requests that wait for others.
func (e *ending) goaway() {
	if told, stay := e.sessions.Leave(moveOn); told > 0 {
		e.log.Info("apps were told to move on", "connections", told, "still_open", stay)
	}
	e.engine.Watches.Stop()
	e.engine.LeaseTokens.Close()
}

// writesEndAfter is the least time that writes to origins have: 2.5 s less than this host waits, at its end,
// until others know how they have ended.
const writesEndAfter = 7500 * time.Millisecond

// endWrites cancels the writes to origins soon: it leaves time to tell other hosts about
// their end.
func (e *ending) endWrites() *time.Timer {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.late == nil {
		e.late = time.AfterFunc(max(writesEndAfter, e.engine.Node.LeaveTime()*3/4), e.engine.Namespaces.EndWrites)
	}
	return e.late
}

// stopped logs the end and returns its error, which is nil if ctx of Run has ended.
func (e *ending) stopped(err error) error {
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	reads, writes := e.engine.Namespaces.Served()
	if err != nil {
		e.log.Error("stopped, because of an error", "error", err, "reads", reads, "writes", writes)
	} else {
		e.log.Info("stopped", "reads", reads, "writes", writes)
	}
	return err
}
