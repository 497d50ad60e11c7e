package hosts

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// mute is a gossip transport that sends nothing while on is set. It still receives.
type mute struct {
	memberlist.Transport
	on *atomic.Bool
}

func (m mute) WriteTo(b []byte, to string) (time.Time, error) {
	if m.on.Load() {
		return time.Now(), nil
	}
	return m.Transport.WriteTo(b, to)
}

func (m mute) DialTimeout(to string, d time.Duration) (net.Conn, error) {
	if m.on.Load() {
		return nil, errors.New("mute")
	}
	return m.Transport.DialTimeout(to, d)
}

// forget asks a host to make all hosts forget another one.
func (v *vnode) forget(node string) wire.Reply {
	return v.s.engine.Admin.ForgetEverywhere(context.Background(), &wire.Request{Op: wire.OpForget, Key: []byte(node), TimeoutMS: 1000})
}

// lists returns the state in which a host lists another one; "" if it does not know it.
func (v *vnode) lists(node string) (state string, m cluster.Member) {
	for _, m := range v.s.engine.Node.Members() {
		if string(m.ID.Node) == node {
			return m.State, m
		}
	}
	return "", cluster.Member{}
}

// wants waits until hosts list another host in a state.
func (w *world) wants(within time.Duration, node, state string, hosts ...*vnode) {
	w.t.Helper()
	for _, v := range hosts {
		for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
			got, m := v.lists(node)
			if got == state {
				break
			}
			if time.Since(began) > within {
				w.t.Fatalf("%s lists %s as %q, want %q: %+v", v.name, node, got, state, m)
			}
		}
	}
}

// leased reports whether the statistics and metrics of a host show a lease on another
// host.
func (v *vnode) leased(node string) bool {
	return slices.ContainsFunc(v.s.engine.Node.Stats().Invalidations.Leases, func(l cachesidecar.LeaseStats) bool { return l.Node == node })
}

func (w *world) endAll() {
	for _, v := range w.nodes {
		if v.s != nil {
			v.kill()
		}
	}
	time.Sleep(time.Minute)
}

// TestLengthyVirtualForgottenAfterAnHour checks that a host that died is listed for an hour of silence
// and then forgotten, like a host that has left. A process that comes back under the name
// joins like any other. An operator may have a host forgotten at once, on all hosts: see
// TestVirtualForget.
func TestLengthyVirtualForgottenAfterAnHour(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 4)
		w.bound = 30 * time.Second // and fewer polls in an hour
		w.startAll()
		a, b, c, d := w.nodes[0], w.nodes[1], w.nodes[2], w.nodes[3]
		w.agreed(5 * time.Minute)
		w.wants(5*time.Minute, "n2", cluster.StateIn, a, b)
		w.wants(5*time.Minute, "n3", cluster.StateIn, a, b)
		c.kill()
		d.leave()
		w.wants(time.Minute, "n2", cluster.StateMissing, a, b)
		w.wants(time.Minute, "n3", cluster.StateLeft, a, b)
		if a.leased("n2") || a.leased("n3") || !a.leased("n1") { // an alert on old leases would name them
			t.Errorf("leases on hosts that are gone: %+v", a.s.engine.Node.Stats().Invalidations.Leases)
		}
		time.Sleep(58 * time.Minute)
		w.wants(0, "n2", cluster.StateMissing, a, b)
		w.wants(0, "n3", cluster.StateLeft, a, b)
		w.wants(4*time.Minute, "n2", "", a, b)
		w.wants(4*time.Minute, "n3", "", a, b)
		for _, v := range []*vnode{a, b} {
			if v.leased("n2") || v.leased("n3") {
				t.Errorf("%s reports leases on hosts that are forgotten: %+v", v.name, v.s.engine.Node.Stats().Invalidations.Leases)
			}
		}
		c.start()
		w.wants(5*time.Minute, "n2", cluster.StateIn, a, b)
		w.agreed(5 * time.Minute)
		w.endAll()
	})
}

// TestVirtualForget checks that an operator's FORGET reaches all live hosts, and that it forgets
// neither a live host nor the host that is asked.
func TestVirtualForget(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	for _, voters := range policies {
		bubble.Test(t, func(t *testing.T) {
			w := newWorld(t, 1, 4)
			w.voters = voters
			w.startAll()
			a, b, c, d := w.nodes[0], w.nodes[1], w.nodes[2], w.nodes[3]
			w.agreed(20 * time.Second)
			w.wants(10*time.Second, "n2", cluster.StateIn, a, b, d)
			says := func(r wire.Reply, status wire.Status, text string) {
				t.Helper()
				if r.Status != status || !strings.Contains(string(r.Message), text) {
					t.Errorf("%v %q, want %v and %q", r.Status, r.Message, status, text)
				}
			}
			says(a.forget("n2"), wire.Unavailable, "n2 is not forgotten by n0: it lives: gossip hears it, state in: stop it")
			says(a.forget("n0"), wire.BadRequest, "this very host")
			says(a.forget("n9"), wire.Miss, "")
			c.kill()
			w.wants(10*time.Second, "n2", cluster.StateMissing, a)
			w.agreed(20 * time.Second)
			says(a.forget("n2"), wire.OK, "")
			w.wants(0, "n2", "", a, b, d)
			says(d.forget("n2"), wire.Miss, "")
			time.Sleep(30 * time.Second) // meanwhile hosts exchange what they know
			w.wants(0, "n2", "", a, b, d)
			if a.leased("n2") {
				t.Error("it reports a lease on a host that is forgotten")
			}
			// One voter of three is gone. The other two are a majority; a single voter is
			// not.
			if r, err := b.s.execute(context.Background(), &wire.Request{Op: wire.OpSet, Namespace: session.DefaultNamespace, Key: []byte("k"), Value: []byte("v"), TTLMS: wire.TTLDefault}); err != nil {
				t.Errorf("a write after it: %v, %v", r.Status, err)
			}
			if len(voters) > 0 {
				w.net.Isolate(b.ip)
				time.Sleep(20 * time.Second)
				if a.s.engine.Node.Quorum() || a.s.engine.Node.Stats().Owned > 0 {
					t.Error("one voter of three is a majority, once another is forgotten")
				}
				w.net.Heal()
				time.Sleep(20 * time.Second)
			}
			c.start()
			w.wants(20*time.Second, "n2", cluster.StateIn, a, b, d)
			w.agreed(20 * time.Second)
			w.endAll()
		})
	}
}

// TestVirtualForgottenOnlyCutOff checks a host that another host has forgotten, and that was
// only cut off. It is a member again once the two hear each other: at its old address,
// although neither is a join address of the other.
func TestVirtualForgottenOnlyCutOff(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 5)
		w.startAll()
		a, d, e := w.nodes[0], w.nodes[3], w.nodes[4]
		w.agreed(20 * time.Second)
		w.wants(20*time.Second, "n3", cluster.StateIn, e)
		w.net.Isolate(d.ip)
		w.wants(20*time.Second, "n3", cluster.StateMissing, a)
		time.Sleep(10 * time.Second)
		if r := a.forget("n3"); r.Status != wire.OK {
			t.Fatalf("%v %q", r.Status, r.Message)
		}
		w.wants(0, "n3", "", a, e)
		w.net.Heal()
		w.wants(30*time.Second, "n3", cluster.StateIn, a, e)
		w.agreed(20 * time.Second)
		w.endAll()
	})
}

// TestVirtualForgetOnlyTheDead checks that a host that gossip misses, but polls still reach, is
// not forgotten. It goes on owning what it owned.
func TestVirtualForgetOnlyTheDead(t *testing.T) {
	testenv.Takes(t, time.Second)
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 3)
		var silent atomic.Bool
		for _, v := range w.nodes {
			v.gossips = func(g memberlist.Transport) memberlist.Transport { return mute{g, &silent} }
			v.start()
		}
		a, b := w.nodes[0], w.nodes[1]
		w.agreed(20 * time.Second)
		silent.Store(true)
		w.wants(time.Minute, "n1", cluster.StateMissing, a)
		time.Sleep(time.Minute)
		held := b.s.engine.Node.Owned().Len()
		if r := a.forget("n1"); r.Status != wire.Unavailable || !strings.Contains(string(r.Message), "it was heard") {
			t.Errorf("%v %q", r.Status, r.Message)
		}
		time.Sleep(time.Minute)
		if now := b.s.engine.Node.Owned().Len(); held == 0 || now != held {
			t.Errorf("it held %d partitions, and %d now", held, now)
		}
		silent.Store(false)
		w.wants(time.Minute, "n1", cluster.StateIn, a)
		w.endAll()
	})
}

// TestVirtualRefusedHostIsWaitedForByNone checks a host that was refused from its start, and so
// owns nothing. Nothing waits for it while it lives, and it is forgotten as soon as it is
// considered dead.
func TestVirtualRefusedHostIsWaitedForByNone(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 3)
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		a.start()
		b.start()
		w.agreed(20 * time.Second)
		w.wants(10*time.Second, "n1", cluster.StateIn, a)
		w.bound = 3 * time.Second
		c.start()
		w.wants(6*time.Second, "n2", cluster.StateRefused, a, b)
		whole := func(when string) {
			t.Helper()
			if r := a.s.engine.Changes.FlushCluster(context.Background(), &wire.Request{Op: wire.OpFlush, Options: wire.All | wire.Cluster, Namespace: session.DefaultNamespace}, &namespaces.Pins{Table: a.s.engine.Namespaces}, a.s.engine.Clock.Read().Boot+5*time.Second); r.Status != wire.OK {
				t.Errorf("%s: flush of the cluster: %v %s", when, r.Status, r.Message)
			}
			if v := a.s.engine.Admin.NewCheck(); v.Hosts() != 2 || len(v.Trouble()) > 0 {
				t.Errorf("%s: verify: %d hosts, %q", when, v.Hosts(), v.Trouble())
			}
		}
		whole("while it runs")
		time.Sleep(6 * time.Second)
		c.kill()
		whole("killed")
		w.wants(15*time.Second, "n2", "", a, b)
		whole("forgotten")
		w.bound = cluster.DefaultBound
		c.start()
		w.wants(20*time.Second, "n2", cluster.StateIn, a, b)
		w.endAll()
	})
}

// TestVirtualForgottenHostThatPolls checks a host that all others have forgotten, and that
// reaches them by polls alone for a while. It is heard. Once it is silent again it is
// considered dead, and blocks nothing.
func TestVirtualForgottenHostThatPolls(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 4)
		var silent atomic.Bool
		d := w.nodes[3]
		d.gossips = func(g memberlist.Transport) memberlist.Transport { return mute{g, &silent} }
		w.startAll()
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		w.agreed(20 * time.Second)
		w.wants(20*time.Second, "n3", cluster.StateIn, a, b, c)
		silent.Store(true)
		w.net.Isolate(d.ip)
		w.wants(20*time.Second, "n3", cluster.StateMissing, a, b, c)
		time.Sleep(20 * time.Second)
		if r := a.forget("n3"); r.Status != wire.OK {
			t.Fatalf("%v %q", r.Status, r.Message)
		}
		time.Sleep(10 * time.Second) // joins under way have failed by then
		w.net.Heal()
		time.Sleep(2 * time.Second) // it goes out once it is told that it cannot be polled
		polls := a.s.engine.Node.Stats().PollFailures
		w.net.Isolate(d.ip)
		time.Sleep(10 * time.Second)
		if n := a.s.engine.Node.Stats().PollFailures - polls; n > 0 {
			t.Errorf("%d polls of a host that gossip does not know", n)
		}
		c.kill()
		d.kill()
		w.agreed(20 * time.Second)
		w.endAll()
	})
}
