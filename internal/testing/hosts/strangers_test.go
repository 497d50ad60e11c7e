package hosts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	gt "github.com/cachesidecar/cachesidecar/internal/testing/gossiptest"
	"github.com/cachesidecar/cachesidecar/internal/testing/simnet"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// stranger is a sender at the gossip port that does not belong to the cluster: it sends
// anything to any node. It has its own list of nodes, because tests add nodes to a world
// while one of its goroutines still runs.
type stranger struct {
	known []*vnode
	host  *simnet.Host
	tr    memberlist.Transport
}

const strangerIP = "10.0.66.6"

func (w *world) stranger() *stranger {
	h := w.net.Host(strangerIP)
	return &stranger{slices.Clone(w.nodes), h, h.Transport(7946)}
}

func (s *stranger) tell(v *vnode, message []byte) {
	_, _ = s.tr.WriteTo(gt.Labelled(cluster.DefaultCluster, message), v.ip+":7946")
}

// invents tells all nodes of n processes that do not exist, for a while.
func (s *stranger) invents(n int, peers func(i int) string, d time.Duration) {
	end := time.Now().Add(d)
	for incarnation := uint32(1); time.Now().Before(end); incarnation++ {
		for i := range n {
			meta := gt.Meta(peers(i), 1<<60+uint64(i), 1<<32-1, true, 1<<63)
			for _, v := range s.known {
				s.tell(v, gt.Alive(fmt.Sprint("fake", i), net.ParseIP(strangerIP), 21998, incarnation, meta))
			}
			if i%20 == 19 {
				time.Sleep(time.Millisecond)
			}
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// sink counts the connections to a port of the stranger.
func (s *stranger) sink(t *testing.T, port int) *atomic.Int64 {
	ln, err := s.host.Listen(port)
	testenv.Must(t, err)
	var dials atomic.Int64
	go func() { // ends with the listener
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			dials.Add(1)
			_ = nc.Close()
		}
	}()
	t.Cleanup(func() { _ = ln.Close() })
	return &dials
}

// rings checks that every node has exactly the running nodes in its ring.
func (w *world) rings(t *testing.T, what string) {
	t.Helper()
	var want []string
	for _, v := range w.nodes {
		if v.s != nil {
			want = append(want, v.name)
		}
	}
	slices.Sort(want)
	for _, v := range w.nodes {
		if v.s == nil {
			continue
		}
		var got []string
		for _, m := range v.s.engine.Node.View().Table.Members() {
			got = append(got, string(m.Node))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %s has %v in its ring, want %v", what, v.name, got, want)
		}
	}
}

// 500 invented members change nothing. Every read and write continues. Nodes connect to
// an address of the stranger's choice only now and then. A host that starts meanwhile
// joins, and the partitions of a killed host are taken over.
func TestLengthyVirtualInvented(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	t.Parallel()
	inQuietWorld(t, 3, func(t *testing.T, w *world) {
		s := w.stranger()
		dials := s.sink(t, 21999)
		late := &vnode{w: w, i: 3, name: "late", ip: "10.0.9.9", clock: &virtualClock{origin: w.begun}}
		s.known = append(s.known, late)
		done := make(chan struct{})
		const attack = 60 * time.Second
		go func() { // ends after attack
			defer close(done)
			s.invents(500, func(i int) string { return fmt.Sprintf("%s:%d", strangerIP, 21999-i%2*(i%400)) }, attack)
		}()
		began := time.Now()
		for time.Since(began) < 15*time.Second {
			if stored := setAll(w.nodes[0], 20, "v"); stored != 20 {
				t.Fatalf("after %v %d of 20 are stored", time.Since(began), stored)
			}
			for i := range 20 {
				if _, err := w.nodes[1].s.Get(context.Background(), "default", string(testKeyOf(i)), cachesidecar.GetOptions{}); err != nil {
					t.Fatalf("after %v: %v", time.Since(began), err)
				}
			}
			time.Sleep(200 * time.Millisecond)
		}
		w.rings(t, "meanwhile")
		perSecond := float64(dials.Load()) / time.Since(began).Seconds()
		t.Logf("%.1f connections a second to the stranger's address, of 3 nodes", perSecond)
		if perSecond > 3*20 {
			t.Errorf("more than 20 of each node")
		}
		for _, v := range w.nodes {
			list := v.s.engine.Node.Members()
			if len(list) > 3+300 {
				t.Errorf("%s lists %d members", v.name, len(list))
			}
			for _, m := range list {
				if m.State == cluster.StateUnknown && (m.MayOwn || m.Owned != 0) {
					t.Errorf("%s counts on %+v", v.name, m)
				}
			}
		}
		w.nodes = append(w.nodes, late)
		late.start()
		began = time.Now()
		for !late.s.engine.Node.Stats().In && time.Since(began) < 20*time.Second {
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(time.Second)
		w.agreed(20*time.Second - time.Since(began))
		w.rings(t, "with one that has started")
		t.Logf("a host that starts meanwhile is in after %v", time.Since(began))
		w.nodes[2].kill()
		began = time.Now()
		w.agreed(20 * time.Second)
		t.Logf("one that is killed is taken over from after %v", time.Since(began))
		<-done
		w.rings(t, "after it")
		time.Sleep(40 * time.Second)
		for _, v := range w.nodes {
			if v.s == nil {
				continue
			}
			for _, m := range v.s.engine.Node.Members() {
				if m.State == cluster.StateUnknown {
					t.Errorf("%s lists %s", v.name, m.ID.Node)
				}
			}
		}
	})
}

// What a stranger says about existing members has no effect either: that they are dead,
// that another process has their name, that they have another address, that they own
// nothing or everything.
func TestLengthyVirtualSlander(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 5*time.Second)
	const most = 1<<32 - 1
	for _, tc := range []struct {
		name string
		tell func(v *vnode, incarnation uint32) [][]byte
	}{
		{"dead", func(v *vnode, i uint32) [][]byte {
			return [][]byte{gt.Gone(gt.DeadType, v.name, "x", i), gt.Gone(gt.SuspectType, v.name, "x", i), gt.Gone(gt.DeadType, v.name, v.name, i)}
		}},
		{"dead, for good", func(v *vnode, i uint32) [][]byte { return [][]byte{gt.Gone(gt.DeadType, v.name, "x", most)} }},
		{"another process", func(v *vnode, i uint32) [][]byte {
			return [][]byte{gt.Alive(v.name, net.ParseIP(v.ip), 7946, i, gt.Meta(strangerIP+":21999", 1<<63, 5, true, 1<<63))}
		}},
		{"another address, no weight, and out", func(v *vnode, i uint32) [][]byte {
			e := uint64(v.s.engine.Node.Self().Epoch)
			return [][]byte{gt.Alive(v.name, net.ParseIP(v.ip), 7946, i, gt.Meta(strangerIP+":21999", e, 0, false, 1<<63))}
		}},
		{"another address, for good", func(v *vnode, i uint32) [][]byte {
			e := uint64(v.s.engine.Node.Self().Epoch)
			return [][]byte{gt.Alive(v.name, net.ParseIP(v.ip), 7946, most, gt.Meta(strangerIP+":21999", e, 1<<31, true, 1<<63))}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inQuietWorld(t, 3, func(t *testing.T, w *world) {
				s := w.stranger()
				began, last := time.Now(), 0
				for i := uint32(10); time.Since(began) < 15*time.Second; i += 3 {
					for _, of := range w.nodes {
						for _, m := range tc.tell(of, i) {
							for _, to := range w.nodes {
								if to != of || i%2 == 0 {
									s.tell(to, m)
								}
							}
						}
					}
					time.Sleep(100 * time.Millisecond)
					if stored := setAll(w.nodes[int(i)%3], 20, "v"); stored != 20 {
						t.Fatalf("after %v %d of 20 are stored", time.Since(began), stored)
					}
					last = len(w.nodes[0].s.engine.Node.View().Table.Members())
				}
				w.rings(t, "meanwhile")
				for _, v := range w.nodes {
					for _, m := range v.s.engine.Node.View().Table.Members() {
						if m.Weight != w.nodes[0].s.engine.Node.View().Table.Members()[0].Weight {
							t.Errorf("%s gives %s the weight %d", v.name, m.Node, m.Weight)
						}
					}
				}
				if last != 3 {
					t.Errorf("%d are in the ring", last)
				}
				time.Sleep(60 * time.Second) // until gossip has forgotten
			})
		})
	}
}

// A restarted host that cannot reach an owner does not own anything that the owner may
// own, for as long as a third host reports that owner. Gossip's word alone has no such
// effect.
func TestVirtualNamedByOthers(t *testing.T) {
	testenv.Takes(t, time.Second)
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 3)
		w.startAll()
		w.agreed(15 * time.Second)
		again, holder := w.nodes[2], w.nodes[0]
		if setAll(holder, 100, "v") != 100 {
			t.Fatal("not all is stored")
		}
		again.kill()
		w.net.Cut(again.ip, holder.ip)
		again.start()
		for range 300 {
			time.Sleep(100 * time.Millisecond)
			if again.s.engine.Node.Stats().In || again.s.engine.Node.Owned().Len() > 0 {
				t.Fatal("it is in, and has not heard the holder")
			}
		}
		w.net.Heal()
		w.agreed(20 * time.Second)
		w.killAll()
	})
}

// Only the ports between sidecars are cut, and no host that was asked directly reports
// the owner. A restarted host waits for a while, and then continues alone: this is a
// split. Gossip alone must not keep the host out for ever, because strangers send gossip
// too.
func TestVirtualRumourOnly(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 2)
		var cut atomic.Bool
		for _, v := range w.nodes {
			v.dials = func(ctx context.Context, to string) (net.Conn, error) {
				if cut.Load() {
					return nil, errors.New("cut")
				}
				return v.host.Dial(ctx, to)
			}
			v.start()
		}
		w.agreed(15 * time.Second)
		w.nodes[1].kill()
		cut.Store(true)
		w.nodes[1].start()
		detection := w.bound * 3 / 2
		for range 4 {
			time.Sleep(detection)
			if v, err := w.nodes[1].s.engine.Node.Flush(t.Context(), ""); err == nil {
				t.Errorf("a flush is acknowledged, of %d, which the other has not noted", v)
			}
		}
		if w.nodes[1].s.engine.Node.Stats().In {
			t.Error("it is in at once")
		}
		why := ""
		for _, m := range w.nodes[1].s.engine.Node.Members() {
			if m.State == cluster.StateUnknown {
				why = string(m.ID.Node) + ": " + m.Why
			}
		}
		if why == "" {
			t.Error("it does not list the other")
		}
		t.Log(why)
		time.Sleep(2 * detection)
		if !w.nodes[1].s.engine.Node.Stats().In {
			t.Error("it waits for ever")
		}
		cut.Store(false)
		w.agreed(30 * time.Second)
		w.killAll()
	})
}

// two returns a description of a partition that two hosts serve, or "".
func (w *world) two() string {
	by := map[uint16]string{}
	for _, v := range w.nodes {
		if v.s == nil {
			continue
		}
		for p := range v.s.engine.Node.Owned().All() {
			if by[p] != "" {
				return fmt.Sprintf("%s and %s both serve partition %d", by[p], v.name, p)
			}
			by[p] = v.name
		}
	}
	return ""
}

// A node takes from gossip that a member has gone out only if it cannot hear that member,
// and does not pass it on. So while one link is cut, a stranger's word moves nothing. Nor
// does it outlast the cut. That another process has the member's name is never taken from
// gossip.
func TestVirtualSlanderAcrossACut(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	for _, another := range []bool{false, true} {
		slander(t, another, t.Errorf)
	}
}

// slander lets a stranger tell all nodes that a host has gone out, or that it is another
// process, while the link between that host and another host is cut. It calls bad if two
// hosts serve one partition.
func slander(t *testing.T, another bool, bad func(format string, args ...any)) {
	inQuietWorld(t, 3, func(t *testing.T, w *world) {
		s, owner, count := w.stranger(), w.nodes[1], uint32(10)
		epoch := uint64(owner.s.engine.Node.Self().Epoch)
		if another {
			epoch = 1 << 63
		}
		meta := gt.Meta(owner.ip+":7947", epoch, 1, false, 1<<62)
		for _, cut := range []bool{true, false} {
			if w.net.Heal(); cut {
				w.net.Cut(owner.ip, w.nodes[2].ip)
			}
			found := ""
			for began := time.Now(); time.Since(began) < 10*time.Second && found == ""; count += 3 {
				for _, to := range w.nodes {
					s.tell(to, gt.Alive(owner.name, net.ParseIP(owner.ip), 7946, count, meta))
				}
				time.Sleep(100 * time.Millisecond)
				if found = w.two(); found != "" {
					bad("%v after the cut, or its end (%v): %s", time.Since(began), !cut, found)
				}
			}
			for _, v := range w.nodes {
				if list := v.s.engine.Node.View().Table.Members(); !cut && len(list) != 3 {
					bad("after the cut %s has %v in its ring", v.name, list)
				}
			}
		}
		time.Sleep(60 * time.Second) // until gossip has forgotten
	})
}

// TestHostAsksLikeAnApp checks that another host is refused what only apps may ask for. It
// has no rights of an app, so nothing must look for them.
func TestHostAsksLikeAnApp(t *testing.T) {
	s := start(t, Config{})
	for _, q := range []wire.Request{
		{Op: wire.OpWatch, Options: wire.All, WaitMS: 1000},
		{Op: wire.OpWatch, Namespace: b("default"), WaitMS: 1000},
		{Op: wire.OpHello, Hello: wire.Hello{Versions: []int{wire.Version}, Token: "secret"}},
		{Op: wire.OpKeys}, {Op: wire.OpHot, Options: wire.All}, {Op: wire.OpSlow, Options: wire.All},
		{Op: wire.OpReload}, {Op: wire.OpDrain}, {Op: wire.OpLeaving},
	} {
		other := dialAsHost(t, s)
		if err := s.Flush(t.Context(), "default", cachesidecar.FlushOptions{}); err != nil { // an event that WATCH tells of
			t.Fatal(err)
		}
		if r := other.call(&q); r.Status != wire.Unsupported {
			t.Errorf("%s: %s %s", q.Op, r.Status, r.Message)
		}
	}
}

// TestHostInAnothersName checks that a host asks for entries only in its own name.
func TestHostInAnothersName(t *testing.T) {
	s := start(t, Config{})
	ballot := kv.Ballot{Clock: 1, Process: kv.Process{Node: "b", Epoch: 2}}
	for op, body := range map[wire.Op]any{
		wire.OpPull:  &wire.Pull{Ballot: ballot},
		wire.OpFetch: &wire.Fetch{Ballot: ballot, Namespace: "default", Key: []byte("k")},
	} {
		bytes := wire.MarshalBody(body)
		r := dialAsHost(t, s).call(&wire.Request{Op: op, Body: bytes})
		if r.Status != wire.Unauthorized || !strings.Contains(string(r.Message), "in the name of b: this connection is of other") {
			t.Errorf("%s: %s %s", op, r.Status, r.Message)
		}
	}
}
