package cluster

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/simnet"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
)

// byHand follows a node's log step by step, over its own connection.
type byHand struct {
	t    *testing.T
	n    *Node
	log  *invalidation.Log
	c    *rpc.Client
	came chan *followed
	stop func() // stops the goroutines that answer followers
}

// bubbleClock is the virtual clock of the test's bubble.
type bubbleClock struct{ begun time.Time }

func (bc bubbleClock) Read() kv.Moment {
	return kv.Moment{Wall: time.Now().UnixMilli(), Boot: time.Hour + time.Since(bc.begun)}
}

// follows runs a test in virtual time with a follower of a node with a bound B; heartbeats
// come every B/4.
func follows(t *testing.T, bound time.Duration, f func(*testing.T, *byHand)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) { f(t, newByHand(t, bound)) })
}

func newByHand(t *testing.T, bound time.Duration) *byHand {
	t.Helper()
	log := invalidation.NewLog(100)
	n, err := New(Config{
		Self: kv.Process{Node: "a", Epoch: 1}, Bind: "127.0.0.1:0", PeerBind: "127.0.0.1:0",
		Bound: bound, Clock: bubbleClock{time.Now()}, Versions: kv.NewHLC(1), Delegate: noDelegate{}, Mirror: noDelegate{}, Events: log,
		Network: Network{Nap: time.Sleep},
	})
	testenv.Must(t, err)
	hosts := simnet.New(1)
	ln, err := hosts.Host("10.0.0.1").Listen(7000)
	testenv.Must(t, err)
	from := kv.Process{Node: "b", Epoch: 1}
	n.followers.addReader(from, n.cfg.Clock.Read().Boot)
	server := server.New(server.Limits{}, n.cfg.Log, func(net.Conn) (server.Handler, error) { return n.handler(from, peer.Poll), nil })
	r := &byHand{t: t, n: n, log: log, came: make(chan *followed, 100)}
	var all, answering sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	inner, end := context.WithCancel(ctx)
	all.Go(func() { _ = server.Serve(ctx, ln) })
	answering.Go(func() { n.followers.run(inner) })
	answering.Go(func() { n.followers.runHeartbeats(inner) })
	r.stop = func() { end(); answering.Wait() }
	nc, err := hosts.Host("10.0.0.2").Dial(ctx, ln.Addr().String())
	testenv.Must(t, err)
	r.c = rpc.NewClient(nc, rpc.ClientConfig{})
	t.Cleanup(func() {
		r.stop()
		stop()
		_ = r.c.Close()
		all.Wait()
	})
	return r
}

// sendFollows sends a number of FOLLOWs in one write.
func (bh *byHand) sendFollows(calls int, f wire.Follow) {
	bh.t.Helper()
	for range calls {
		body := wire.MarshalBody(&f)
		testenv.Must(bh.t, bh.c.Start(&wire.Request{Op: wire.OpFollow, Body: body}, time.Minute, &followed{came: bh.came}))
		f.Anew = false
	}
	bh.c.Flush()
}

func (bh *byHand) append(events int) {
	for range events {
		bh.log.Append(invalidation.Event{Hash: 7, Version: 1})
	}
}

// answer waits for an answer that leads from one place to another.
func (bh *byHand) answer(after, to uint64) (w wire.Followed) {
	bh.t.Helper()
	select {
	case f := <-bh.came:
		var reply wire.Reply
		if f.err != nil || wire.DecodeReply(wire.OpFollow, f.frame, &reply) != nil || wire.UnmarshalBody(reply.Body, &w) != nil {
			bh.t.Fatalf("%v, %x", f.err, f.frame)
		}
		if w.After != after || w.To != to || w.Events.Len() != int(to-after) {
			bh.t.Fatalf("an answer from %d to %d with %d events, want %d to %d", w.After, w.To, w.Events.Len(), after, to)
		}
	case <-time.After(someTime / 2 * time.Millisecond):
		bh.t.Fatalf("no answer, want %d to %d", after, to)
	}
	return w
}

// nothing checks that no answer arrives for a while.
func (bh *byHand) nothing() {
	bh.t.Helper()
	select {
	case f := <-bh.came:
		bh.t.Fatalf("an answer: %v, %x", f.err, f.frame)
	case <-time.After(20 * time.Millisecond):
	}
}

const someTime = 60_000 // ms

// TestFollowsInARow checks that each waiting FOLLOW is answered once, with the events
// after the answer before it. A FOLLOW that comes late is answered at once with the
// events that were missed.
func TestFollowsInARow(t *testing.T) {
	follows(t, time.Hour, func(t *testing.T, r *byHand) {
		r.sendFollows(3, wire.Follow{WaitMS: someTime, Anew: true})
		r.nothing()
		r.append(1)
		r.answer(0, 1)
		r.nothing()
		r.append(1)
		r.answer(1, 2)
		r.append(1)
		r.answer(2, 3)
		r.append(2)
		r.nothing() // no call waits
		r.sendFollows(2, wire.Follow{Applied: 1, WaitMS: someTime})
		r.answer(3, 5)
		r.nothing()
		r.append(1)
		r.answer(5, 6)
	})
}

// TestFollowHeartbeat checks that a FOLLOW waits for B/4 at most.
func TestFollowHeartbeat(t *testing.T) {
	follows(t, MinBound, func(t *testing.T, r *byHand) {
		begun := time.Now()
		r.sendFollows(2, wire.Follow{WaitMS: someTime, Anew: true})
		r.answer(0, 0)
		if took, want := time.Since(begun), r.n.cfg.followWait(); took < want || took > want+want/10 {
			t.Errorf("it took %v, want %v", took, want)
		}
		r.answer(0, 0)
		r.sendFollows(1, wire.Follow{})
		r.answer(0, 0)
	})
}

// TestFollowAnew checks that a follower that starts again gets the events after those
// that it has applied. Earlier FOLLOWs take none of these events.
func TestFollowAnew(t *testing.T) {
	follows(t, time.Hour, func(t *testing.T, r *byHand) {
		r.append(3)
		r.sendFollows(1, wire.Follow{WaitMS: someTime, Anew: true})
		r.answer(0, 3)
		r.sendFollows(2, wire.Follow{WaitMS: someTime})
		r.nothing()
		r.sendFollows(2, wire.Follow{Applied: 1, WaitMS: someTime, Anew: true})
		r.answer(3, 3)
		r.answer(3, 3)
		r.answer(1, 3)
		r.nothing()
		r.append(1)
		r.answer(3, 4)
		if r.c.InFlight() != 0 {
			t.Errorf("%d calls still wait", r.c.InFlight())
		}
	})
}

// TestFollowAnotherLog checks that a place that the log has not reached is answered
// too.
func TestFollowAnotherLog(t *testing.T) {
	follows(t, MinBound, func(t *testing.T, r *byHand) {
		r.append(4)
		r.sendFollows(1, wire.Follow{Applied: 50, WaitMS: someTime, Anew: true})
		select {
		case f := <-r.came:
			if f.err != nil {
				t.Error(f.err)
			}
		case <-time.After(someTime / 2 * time.Millisecond):
			t.Error("no answer")
		}
	})
}

// TestFollowerIsUrged checks that a caller that waits for all followers to apply
// something need not wait for the follower's next call.
func TestFollowerIsUrged(t *testing.T) {
	for _, waits := range []bool{true, false} {
		follows(t, time.Hour, func(t *testing.T, r *byHand) {
			calls := 1
			if waits {
				calls = 3
			}
			r.sendFollows(calls, wire.Follow{WaitMS: someTime, Anew: true})
			r.append(1)
			if r.answer(0, 1).Tell {
				t.Error("asked to tell though no follower waits")
			}
			done := make(chan bool, 1)
			go func() { done <- r.n.Applied(t.Context(), 1) }() // ends with the test
			if !waits {
				time.Sleep(10 * time.Millisecond)
				r.sendFollows(1, wire.Follow{WaitMS: someTime}) // was on its way
			}
			if !r.answer(1, 1).Tell {
				t.Error("not asked to tell")
			}
			select {
			case <-done:
				t.Error("it is known before it was told")
			case <-time.After(20 * time.Millisecond):
			}
			r.sendFollows(1, wire.Follow{Applied: 1, WaitMS: someTime})
			if !<-done {
				t.Error("it is not told")
			}
		})
	}
}

// TestFollowEnds checks that at the end every call gets an answer.
func TestFollowEnds(t *testing.T) {
	follows(t, time.Hour, func(t *testing.T, r *byHand) {
		r.sendFollows(2, wire.Follow{WaitMS: someTime, Anew: true})
		r.nothing()
		r.stop()
		r.answer(0, 0)
		r.answer(0, 0)
		r.sendFollows(1, wire.Follow{WaitMS: someTime})
		r.answer(0, 0)
	})
}
