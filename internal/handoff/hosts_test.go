package handoff_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/handoff"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/simnet"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// soft lets Soften leave stale values.
var soft = namespaces.Settings{StaleLimit: time.Minute}

// host is a process with a Handoff, and with the parts that a Handoff stands on. Its node
// reaches the other hosts and nothing else: the test itself begins and ends ownerships.
type host struct {
	*handoff.Handoff
	t      *testing.T
	self   kv.Process
	clock  *clock // of the Handoff alone, so that a test can stop the Handoff at a reading
	hlc    *kv.HLC
	store  *segment.Store
	ledger *invalidation.Ledger
	events *invalidation.Log
	names  *namespaces.Table
	node   *cluster.Node
	net    *simnet.Host
	killed atomic.Bool
	log    *logged
	told   told

	stop func() // ends Run of the Handoff, and returns after it

	// What answers other hosts; the Handoff, unless a test replaces it.
	pull  func(from kv.Process, q *wire.Pull) wire.Reply
	fetch func(from kv.Process, q *wire.Fetch) wire.Reply
}

// clock is the virtual clock of the test's bubble.
type clock struct {
	begun time.Time
	then  atomic.Pointer[func()] // called once, at the next reading
}

func (c *clock) Read() kv.Moment {
	if f := c.then.Swap(nil); f != nil {
		(*f)()
	}
	return kv.Moment{Wall: time.Now().UnixMilli(), Boot: time.Hour + time.Since(c.begun)}
}

// logged keeps a host's log.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// told keeps what a Handoff tells its host.
type told struct {
	begun []ownership.Begun
	at    []time.Duration
	ended map[kv.Version]kv.PartitionSet
}

func (h *told) Began(b *ownership.Begun, now time.Duration) {
	h.begun, h.at = append(h.begun, *b), append(h.at, now)
}

func (h *told) Ended(set kv.PartitionSet, v kv.Version) { h.ended[v] = set }

// logEvents is how many events a host's log keeps. keepFor is how long a host may own what another one keeps.
const (
	logEvents = 64
	keepFor   = 12 * time.Second
)

// maxNames is how many namespaces a host has room for. One of them is the default one.
const maxNames = 3

// newHost returns a host that does not run, and has no node. The settings are those of the
// default namespace.
func newHost(t *testing.T, name string, settings namespaces.Settings) *host {
	t.Helper()
	h := &host{
		t: t, self: kv.Process{Node: kv.NodeID(name), Epoch: 7}, clock: &clock{begun: time.Now()},
		log: &logged{}, told: told{ended: map[kv.Version]kv.PartitionSet{}}, hlc: kv.NewHLC(uint16(name[0])),
	}
	h.hlc.Follow(&clock{begun: h.clock.begun})
	log := slog.New(slog.NewTextHandler(h.log, nil))
	var err error
	must := func() {
		t.Helper()
		testenv.Must(t, err)
	}
	h.events, h.ledger = invalidation.NewLog(logEvents), invalidation.NewLedger(1<<10)
	h.store, err = segment.New(segment.Config{
		Size: segment.MinSize, Versions: h.hlc, Changed: func(k kv.Key, v kv.Version) {
			h.ledger.Note(k.Hash, v)
			h.events.Append(invalidation.Event{Kind: invalidation.Changed, Hash: k.Hash, Version: v})
		},
	})
	must()
	t.Cleanup(func() { _ = h.store.Close() })
	leases := flight.NewLeases()
	t.Cleanup(leases.Close)
	h.names, err = namespaces.New(namespaces.Config{
		Seed: 5, Max: maxNames, Bound: cluster.DefaultBound, Clock: h.clock, Log: log,
		Configured: map[string]namespaces.Settings{namespaces.Default: settings},
	}, namespaces.Parts{Store: h.store, Ledger: h.ledger, Leases: leases, Detach: func(kv.NamespaceID) {}})
	must()
	t.Cleanup(h.names.Close)
	h.Handoff = handoff.New(handoff.Config{
		Self: h.self, Store: h.store, Ledger: h.ledger, Events: h.events, Namespaces: h.names, Clock: h.clock,
		Log: log, Listener: &h.told, KeepFor: keepFor,
	})
	h.pull, h.fetch = h.ServePull, h.ServeFetch
	return h
}

// run runs the Handoff of a host without a network.
func (h *host) run() {
	h.t.Helper()
	node, err := cluster.New(cluster.Config{
		Self: h.self, Clock: &clock{begun: h.clock.begun}, Versions: kv.NewHLC(1), Delegate: delegate{host: h}, Mirror: noMirror{},
	})
	testenv.Must(h.t, err)
	h.node = node
	h.runHandoff()
}

// runHandoff runs the Handoff until stop, or until the test ends.
func (h *host) runHandoff() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends with stop
		defer close(done)
		h.Run(ctx, h.node)
	}()
	h.stop = func() { cancel(); <-done }
	h.t.Cleanup(h.stop)
	synctest.Wait() // Run has begun
}

// between runs a test in virtual time with hosts that reach each other over a network in
// memory.
func between(t *testing.T, names string, f func(t *testing.T, lan *simnet.Net, hosts []*host)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(30 * time.Second) }) // goroutines of memberlist outlive their nodes
		lan := simnet.New(1)
		tables := &tables{made: map[string]*ownership.Ring{}}
		var hosts []*host
		for i, name := range names {
			h := newHost(t, string(name), soft)
			h.connect(lan, i, tables)
			hosts = append(hosts, h)
		}
		for _, h := range hosts {
			for _, o := range hosts {
				h.reaches(o)
			}
			h.runHandoff()
		}
		f(t, lan, hosts)
	})
}

// tables keeps rings, so that hosts with the same members make one.
type tables struct {
	mu   sync.Mutex
	made map[string]*ownership.Ring
}

func (s *tables) table(members []ownership.RingMember) *ownership.Ring {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := fmt.Sprint(members)
	if s.made[key] == nil {
		s.made[key] = ownership.NewRing(members)
	}
	return s.made[key]
}

// noMirror mirrors nothing.
type noMirror struct{}

func (noMirror) Viewed(*cluster.View)                {}
func (noMirror) Stopped(kv.PartitionSet)             {}
func (noMirror) Leased(*cluster.Host, time.Duration) {}
func (noMirror) Paused()                             {}
func (noMirror) Running() time.Duration              { return 0 }
func (noMirror) Ran(_, _ time.Duration)              {}

// connect runs the host's node.
func (h *host) connect(lan *simnet.Net, i int, tables *tables) {
	h.t.Helper()
	h.net = lan.Host(fmt.Sprintf("10.0.0.%d", i+1))
	node, err := cluster.New(cluster.Config{
		Self: h.self, Bind: h.net.IP() + ":7946", PeerBind: h.net.IP() + ":7947", Join: []string{"10.0.0.1:7946"},
		Insecure: true, Clock: &clock{begun: h.clock.begun}, Versions: kv.NewHLC(uint16(i + 1)), Delegate: delegate{host: h}, Mirror: noMirror{},
		LeaveTime: time.Second, Events: h.events,
		Network: cluster.Network{
			Nap: time.Sleep, NoRelay: true, Dial: h.net.Dial, Table: tables.table,
			Listen:    func(string) (net.Listener, error) { return h.net.Listen(7947) },
			Transport: func(string) memberlist.Transport { return h.net.Transport(7946) },
		},
	})
	testenv.Must(h.t, err)
	h.node = node
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }() // ends with stop
	h.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil && !h.killed.Load() {
			h.t.Errorf("node %s: %v", h.self.Node, err)
		}
	})
}

// kill ends the host's process as kill -9 does.
func (h *host) kill() {
	h.killed.Store(true)
	h.net.Kill()
}

// reaches waits until the host has a connection to another one.
func (h *host) reaches(o *host) {
	h.t.Helper()
	for began := time.Now(); h != o; time.Sleep(10 * time.Millisecond) {
		var a peer.Answer
		err := h.node.Do(context.Background(), o.self, time.Second, &wire.Request{Op: wire.OpPing}, &a)
		a.Release()
		if err == nil {
			return
		}
		if time.Since(began) > time.Minute {
			h.t.Fatalf("%s does not reach %s: %v", h.self, o.self, err)
		}
	}
}

// delegate is what a node needs beside a Handoff, and leaves the Handoff to the test.
type delegate struct{ host *host }

func (delegate) Begin(ownership.Begun, func(kv.Process) *cluster.Host)           {}
func (delegate) Settle()                                                         {}
func (delegate) Ended(kv.PartitionSet, kv.Version)                               {}
func (delegate) Offer(kv.Process, *kv.Ballot, kv.PartitionSet)                   {}
func (delegate) Late([]string, bool, kv.PartitionSet)                            {}
func (delegate) Exiting()                                                        {}
func (delegate) KeepsEntries() bool                                              { return false }
func (delegate) StillLate([]string)                                              {}
func (delegate) Awaited() bool                                                   { return false }
func (delegate) Apply(kv.Process, uint64, []invalidation.Event)                  {}
func (delegate) Relayed([]invalidation.Event)                                    {}
func (delegate) Floors() []wire.Floor                                            { return nil }
func (delegate) NoteFlush(wire.Floor) error                                      { return nil }
func (delegate) LearnFlushes([]wire.Floor)                                       {}
func (delegate) Reset(kv.Process, []invalidation.Mark, []wire.Floor, kv.Version) {}

// Calls returns the handler of another host.
func (t delegate) Calls(from kv.Process) server.Handler {
	return &calls{host: t.host, from: from}
}

// calls answers another host's requests.
type calls struct {
	host *host
	from kv.Process
}

func (*calls) Batch()                                     {}
func (*calls) Served()                                    {}
func (*calls) Gone()                                      {}
func (*calls) Close(error)                                {}
func (*calls) Oversized(*server.Conn, []byte, int, error) {}

func (c *calls) Serve(conn *server.Conn, frames [][]byte) error {
	for _, frame := range frames {
		var q wire.Request
		if err := wire.DecodeRequest(frame, &q); err != nil {
			return err
		}
		id, op := q.ID, q.Op
		answer := func() wire.Reply { return wire.Reply{} } // of PING
		var p wire.Pull
		var f wire.Fetch
		var err *wire.Error
		switch op {
		case wire.OpPull:
			err = peer.Read(c.from, &q, &p)
			answer = func() wire.Reply { return c.host.pull(c.from, &p) }
		case wire.OpFetch:
			err = peer.Read(c.from, &q, &f)
			answer = func() wire.Reply { return c.host.fetch(c.from, &f) }
		}
		if err != nil {
			return err
		}
		conn.Go(func() []byte {
			r := answer()
			r.ID = id
			return wire.AppendReply(nil, op, &r)
		})
	}
	return nil
}

// put stores a value. A ttl of zero is none.
func (h *host) put(namespace, name, value string, ttl time.Duration) kv.Key {
	h.t.Helper()
	return h.write(namespace, name, segment.Write{Value: []byte(value), Facts: kv.Facts{Deadline: kv.After(h.boot(), ttl)}})
}

func (h *host) write(namespace, name string, w segment.Write) kv.Key {
	h.t.Helper()
	k := h.key(namespace, name)
	if _, r := h.store.Put(k, w, h.clock.Read()); r != segment.Stored {
		h.t.Fatalf("%s: %d", name, r)
	}
	return k
}

// absent stores that the origin has no value.
func (h *host) absent(name string, ttl time.Duration) kv.Key {
	h.t.Helper()
	k, now := h.key(namespaces.Default, name), h.clock.Read()
	_, r := h.store.Fill(k, segment.Fill{
		Facts:      kv.Facts{Kind: kv.Absent, Version: h.hlc.Next(now.Wall), Deadline: kv.After(now.Boot, ttl)},
		Generation: h.store.Generation(k.Hash.Partition()), Admit: func() bool { return true },
	}, now)
	if r != segment.Stored {
		h.t.Fatalf("%s: %d", name, r)
	}
	return k
}

// key returns a key, whose namespace gets a slot.
func (h *host) key(namespace, name string) kv.Key {
	h.t.Helper()
	ns, bad := h.names.Obtain([]byte(namespace), nil)
	if bad != nil {
		h.t.Fatal(bad)
	}
	return ns.Key([]byte(name))
}

func (h *host) boot() time.Duration { return h.clock.Read().Boot }

func (h *host) next() kv.Version { return h.hlc.Next(h.clock.Read().Wall) }

// has reports whether the host has a live entry of a key.
func (h *host) has(k kv.Key) bool {
	_, ok := h.store.Peek(k, h.boot())
	return ok
}

// partitions returns the partitions of some keys.
func partitions(keys ...kv.Key) kv.PartitionSet {
	set := kv.NewPartitionSet(kv.Partitions)
	for _, k := range keys {
		set.Add(k.Hash.Partition())
	}
	return set
}

// all returns the set of all partitions.
func all() kv.PartitionSet {
	set := kv.NewPartitionSet(kv.Partitions)
	for p := range uint16(kv.Partitions) {
		set.Add(p)
	}
	return set
}

// ballot returns a new ballot of the host.
func (h *host) ballot() *kv.Ballot { return &kv.Ballot{Clock: h.next(), Process: h.self} }

// release ends the host's ownership of some partitions, and offers them to a ballot. It
// returns the version of the release.
func (h *host) release(b *kv.Ballot, set kv.PartitionSet) kv.Version {
	asOf := h.next()
	h.Ended(set, asOf)
	h.Offer(b.Process, b, set)
	return asOf
}

// begin begins the ownership of some partitions that another host has released.
func (h *host) begin(b *kv.Ballot, from *host, set kv.PartitionSet) {
	h.Begin(ownership.Begun{
		Ballot: b, Partitions: set, Releasers: map[kv.Process]kv.PartitionSet{from.self: set},
	}, nil)
}

// from returns the source of some partitions that another host has released, as if their
// ownership had begun. Nothing is pulled.
func (h *host) from(b *kv.Ballot, from *host, set kv.PartitionSet) *handoff.Source {
	src := &handoff.Source{
		From: from.self, Ballot: *b, Partitions: set, Generations: map[uint16]uint16{},
	}
	for p := range set.All() {
		src.Generations[p] = h.store.Generation(p)
		h.Incoming[p].Store(src)
	}
	return src
}

// move moves the partitions of some keys from one host to another, and waits until the
// pull has ended. It returns the version of the release.
func move(from, to *host, keys ...kv.Key) kv.Version {
	set := partitions(keys...)
	b := to.ballot()
	asOf := from.release(b, set)
	for p := range set.All() {
		to.ledger.RaisePartition(p, asOf) // as the event of the release does
	}
	to.begin(b, from, set)
	to.pulled()
	return asOf
}

// pulled waits until no pull is under way.
func (h *host) pulled() {
	h.t.Helper()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		synctest.Wait()
		if h.Counts.Pulling.Load() == 0 {
			return
		}
		if time.Since(began) > time.Minute {
			h.t.Fatal("a pull does not end")
		}
	}
}

// waits reports whether the entries of some keys' partitions are awaited.
func (h *host) waits(keys ...kv.Key) bool {
	return slices.ContainsFunc(keys, func(k kv.Key) bool { return h.Incoming[k.Hash.Partition()].Load() != nil })
}
