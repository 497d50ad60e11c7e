package attacks

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

const (
	ofIdentity = "the connection's identity is the only one"
	ofPeerPort = "bounds on connections, and on a greeting's time and size"
)

var peerAttacks = []attack{
	{
		name: "peers: requests", hosts: 2,
		tries: "a stranger's greeting, then requests of all kinds",
		bound: "a cluster key; without one the port is loopback's",
		run:   strangers(asks),
	},
	{
		name: "peers: a place in the ring", hosts: 2,
		tries: "POLL, FOLLOW and ACQUIRE of all partitions in a stranger's name",
		bound: ofIdentity,
		run:   strangers(acquires),
	},
	{
		name: "peers: goodbye", hosts: 2,
		tries: "a stranger's GOODBYE in the other host's name",
		bound: ofIdentity,
		run:   strangers(goodbye),
	},
	{
		name: "peers: clocks", hosts: 2,
		tries: "greetings whose version clock is 2⁶⁴ − 1",
		bound: "a clock beyond max_clock_skew is refused before it is merged", shown: versionOfNow,
		run: strangers(clocks),
	},
	{
		name: "peers: a name", hosts: 2,
		tries: "greetings in the name and run of the other host",
		bound: ofIdentity,
		run:   strangers(steals),
	},
	{
		name: "peers: long names", hosts: 2,
		tries: "greetings with names of 8 MB",
		bound: ofPeerPort, shown: shortLog,
		run: longNames,
	},
	{
		name: "peers: idle strangers", hosts: 2,
		tries: "3,000 connections that say nothing",
		bound: ofPeerPort,
		run: func(ctx context.Context, j *job) error {
			j.crowd(ctx, 3000, func(int) error {
				c, err := dial(ctx, "tcp", j.victim().Peer, time.Second)
				if err != nil {
					return err
				}
				defer c.Close()
				j.count.Add(1)
				go func() { <-ctx.Done(); _ = c.Close() }()
				discard(c)
				rest(ctx, time.Second)
				return nil
			})
			return nil
		},
	},
}

// greet connects to the peer port with a valid greeting that change may alter. A refusal
// is an error.
func greet(ctx context.Context, j *job, purpose string, change func(*wire.PeerHello)) (*conn, error) {
	now := testenv.Date().UnixMilli()
	h := wire.PeerHello{
		MinVersion: 1, MaxVersion: 1, Cluster: "cachesidecar",
		From: kv.Process{Node: "stranger", Epoch: kv.Epoch(now) * 1e6}, Purpose: purpose,
		Settings: map[string]string{"detection": "3s", "max_staleness": "2s", "partition_policy": "available", "partitions": "16384"},
		WallMS:   now, Clock: uint64(now) << 22,
	}
	if change != nil {
		change(&h)
	}
	c, err := dial(ctx, "tcp", j.victim().Peer, 2*time.Second)
	if err != nil {
		return nil, err
	}
	a, err := c.call(wire.OpPeerHello, 0, &h)
	if err == nil && a.status != wire.OK {
		err = errors.New(a.String())
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// strangers runs do ten times a second.
func strangers(do func(ctx context.Context, j *job) error) func(context.Context, *job) error {
	return func(ctx context.Context, j *job) error {
		for ctx.Err() == nil {
			_ = do(ctx, j) // it is refused, as it should be
			j.count.Add(1)
			rest(ctx, 100*time.Millisecond)
		}
		return nil
	}
}

func asks(ctx context.Context, j *job) error {
	for _, r := range [][]any{
		{wire.OpSet, nil, []byte("greeting"), []byte("by a stranger")},
		{wire.OpGet, nil, []byte("greeting")}, {wire.OpMGet, victims, [][]byte{[]byte("victim1")}},
		{wire.OpFlush, nil}, {wire.OpStats, 0}, {wire.OpMembers}, {wire.OpApplied, []any{[]int{1}}}, {wire.OpVerify, 100},
		{wire.OpLease, nil, []byte("zz")},
		{wire.OpWatch, nil, 0}, {wire.OpFollow, []any{[]any{1, []any{"x", 1}}, 0}},
		{wire.OpPull, []any{[]any{1, []any{"x", 1}}, "default", []byte("greeting")}},
	} {
		c, err := greet(ctx, j, "call", nil)
		if err != nil {
			return err
		}
		_, _ = c.call(r[0].(wire.Op), 200, r[1:]...)
		_ = c.Close()
	}
	return nil
}

func acquires(ctx context.Context, j *job) error {
	c, err := greet(ctx, j, "poll", nil)
	if err != nil {
		return err
	}
	defer c.Close()
	now := testenv.Date().UnixMilli()
	clock := uint64(now) << 22
	me := kv.Process{Node: "stranger", Epoch: 1}
	poll := wire.Poll{State: 1, Joined: true, In: true, Weight: 1<<32 - 1, Leased: true, WallMS: now, Clock: clock}
	_, err = c.call(wire.OpPoll, 500, &poll)
	_, err2 := c.call(wire.OpFollow, 500, &wire.Follow{WaitMS: 100, Anew: true})
	all := []byte(strings.Repeat("\xff", 2048))
	ballot := kv.Ballot{Clock: kv.Version(clock), Process: me}
	acquire := wire.Acquire{Ballot: ballot, State: 1, Partitions: all, Ring: []kv.Process{me}, Clock: clock}
	_, err3 := c.call(wire.OpAcquire, 500, &acquire)
	return errors.Join(err, err2, err3)
}

func goodbye(ctx context.Context, j *job) error {
	c, err := greet(ctx, j, "poll", nil)
	if err != nil {
		return err
	}
	defer c.Close()
	other := j.Target.Hosts[1]
	_, err = c.call(wire.OpGoodbye, 500, &wire.Goodbye{From: kv.Process{Node: kv.NodeID(other.Node), Epoch: kv.Epoch(other.Epoch)}})
	return err
}

func clocks(ctx context.Context, j *job) error {
	c, err := greet(ctx, j, "call", func(h *wire.PeerHello) { h.Clock = 1<<64 - 1 })
	if err == nil {
		_ = c.Close()
	}
	return err
}

// versionOfNow checks that the version of a new write is close to the time of day.
func versionOfNow(h *house, _ report) error {
	c, err := open(context.Background(), h.hosts[0].Socket, testenv.Patience)
	if err != nil {
		return err
	}
	defer c.Close()
	a, err := c.call(wire.OpSet, 5000, nil, []byte("version"), []byte("v"))
	if err != nil {
		return err
	}
	if at := time.UnixMilli(int64(number(a.at(0)) >> 22)); a.status != wire.OK || testenv.Date().Sub(at).Abs() > time.Minute {
		return fmt.Errorf("a SET is of version %d, %v: %v", number(a.at(0)), at, a)
	}
	return nil
}

func steals(ctx context.Context, j *job) error {
	other := j.Target.Hosts[1]
	c, err := greet(ctx, j, "poll", func(h *wire.PeerHello) {
		h.From = kv.Process{Node: kv.NodeID(other.Node), Epoch: kv.Epoch(other.Epoch)}
	})
	if err != nil {
		return err
	}
	defer c.Close()
	rest(ctx, time.Second)
	return nil
}

func longNames(ctx context.Context, j *job) error {
	name := strings.Repeat("\x01", 8_000_000)
	j.crowd(ctx, 4, func(int) error {
		_, err := greet(ctx, j, "call", func(h *wire.PeerHello) { h.From.Node = kv.NodeID(name); h.Cluster = "other" })
		j.count.Add(1)
		return err
	})
	return nil
}

// shortLog checks that the log is too small to contain a stranger's names.
func shortLog(h *house, _ report) error {
	for _, x := range h.hosts {
		if size := sizeOf(x.log); size > 1<<20 {
			return fmt.Errorf("the log has %d bytes", size)
		}
	}
	return nil
}
