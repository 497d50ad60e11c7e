package faults

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/proctest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// lab is some hosts on one wire. Each host is a network namespace with one interface on a
// bridge, and the bridge has a namespace of its own. The namespaces need no names: each
// exists as long as its process, which dies with the test.
type lab struct {
	t     testing.TB
	wire  int   // the process that keeps the bridge's namespace
	hosts []int // the processes that keep the hosts' namespaces
}

// newLab makes the given number of hosts. It skips the test if that is not possible.
func newLab(t testing.TB, hosts int) *lab {
	t.Helper()
	missing := ""
	for _, tool := range []struct{ name, in string }{{"ip", "iproute2"}, {"iptables", "iptables"}, {"nsenter", "util-linux"}} {
		if _, err := exec.LookPath(tool.name); err != nil {
			missing += " " + tool.in
		}
	}
	switch {
	case os.Geteuid() != 0:
		testenv.Needs(t, "network namespaces need root: run the tests as root")
	case missing != "":
		testenv.Needs(t, "install"+missing)
	}
	l := &lab{t: t}
	l.wire = l.hold()
	l.in(l.wire, "ip", "link", "add", "br0", "type", "bridge")
	l.in(l.wire, "ip", "link", "set", "br0", "up")
	for i := range hosts {
		pid, port := l.hold(), fmt.Sprint("port", i)
		l.in(l.wire, "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(pid))
		l.in(l.wire, "ip", "link", "set", port, "master", "br0", "up")
		l.in(pid, "ip", "addr", "add", l.address(i)+"/24", "dev", "eth0")
		l.in(pid, "ip", "link", "set", "eth0", "up")
		l.in(pid, "ip", "link", "set", "lo", "up")
		l.hosts = append(l.hosts, pid)
	}
	return l
}

// hold makes a network namespace, and returns the process that keeps it.
func (l *lab) hold() int {
	l.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(scrubbed(), asKeeper+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	proctest.EndWithParent(cmd)
	stdin, err := cmd.StdinPipe()
	testenv.Must(l.t, err)
	if err := cmd.Start(); err != nil {
		testenv.Needs(l.t, fmt.Sprintf("no network namespace can be made (%v): run the tests where root may, as in a privileged container", err))
	}
	l.t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

func (l *lab) address(i int) string { return fmt.Sprintf("10.9.0.%d", 1+i) }

// enter returns the words before a command line that run it in a namespace.
func enter(pid int) []string { return []string{"nsenter", "-t", strconv.Itoa(pid), "-n", "--"} }

// in runs a command in a namespace.
func (l *lab) in(pid int, words ...string) {
	l.t.Helper()
	words = append(enter(pid), words...)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		l.t.Fatalf("%s: %v\n%s", strings.Join(words, " "), err, out)
	}
}

// rule adds a rule to a host's packet filter.
func (l *lab) rule(host int, words ...string) {
	l.t.Helper()
	l.in(l.hosts[host], append([]string{"iptables", "-w", "-A"}, words...)...)
}

// heal removes all rules of all hosts.
func (l *lab) heal() {
	l.t.Helper()
	for _, pid := range l.hosts {
		l.in(pid, "iptables", "-w", "-F")
	}
}

const (
	gossipPort = "7946"
	peerPort   = "7947"
)

// newGroup makes a cluster with one sidecar on each host.
func (l *lab) newGroup(bound time.Duration) *group {
	l.t.Helper()
	g := newGroup(l.t, bound, 0)
	for i, pid := range l.hosts {
		n := g.add(net.JoinHostPort(l.address(i), gossipPort))
		n.prefix = enter(pid)
		n.spec.Insecure, n.spec.Advertise = true, l.address(i)
	}
	g.joinAll()
	return g
}

// TestLengthyNetnsSplit cuts one of three hosts off for half a minute, while both sides go on.
// After the cut they become one cluster again. If one side has changed a value, the other
// side does not serve the old one.
func TestLengthyNetnsSplit(t *testing.T) {
	scenario(t, time.Minute)
	l := newLab(t, 3)
	g := l.newGroup(fast)
	g.start(g.nodes)
	w := g.work(true)
	time.Sleep(2 * time.Second)
	cut := w.now()
	l.rule(2, "INPUT", "-i", "eth0", "-j", "DROP")
	l.rule(2, "OUTPUT", "-o", "eth0", "-j", "DROP")
	time.Sleep(10 * time.Second)
	g.alone(g.nodes[:2], g.nodes[2:])
	time.Sleep(20 * time.Second)
	begun := time.Now()
	l.heal()
	// Gossip looks for missing members every few seconds, and connections from before the
	// cut take a while to end: about 5 s. The rest is for the machine.
	if took := g.settle("a split of 30 s has healed", begun); took > 30*time.Second*slowness {
		t.Errorf("all agree after %v, want 30 s at most", took)
	}
	time.Sleep(g.bound)
	healed := w.now()
	w.sweep()
	time.Sleep(time.Second)
	w.check(&stall{cut, healed})
}

// TestLengthyNetnsSplitVoters is the same under policy consistent: the host that is cut off
// serves nothing, and the bound holds throughout.
func TestLengthyNetnsSplitVoters(t *testing.T) {
	scenario(t, time.Minute)
	l := newLab(t, 3)
	g := l.newGroup(fast)
	g.vote(g.nodes...)
	g.start(g.nodes)
	w := g.work(false)
	time.Sleep(2 * time.Second)
	l.rule(2, "INPUT", "-i", "eth0", "-j", "DROP")
	l.rule(2, "OUTPUT", "-o", "eth0", "-j", "DROP")
	time.Sleep(2*g.bound + time.Second)
	g.alone(g.nodes[:2])
	if err := g.nodes[2].servesNothing(); err != nil {
		t.Error(err)
	}
	time.Sleep(15 * time.Second)
	if err := g.nodes[2].servesNothing(); err != nil {
		t.Error(err)
	}
	begun := time.Now()
	l.heal()
	g.settle("a split has healed", begun)
	w.sweep()
	time.Sleep(time.Second)
	w.check(nil)
}

// alone waits until each side is a cluster of its own. A side of one host says so.
func (g *group) alone(sides ...[]*node) {
	g.t.Helper()
	for _, side := range sides {
		testenv.Succeeds(g.t, "a side to go on alone", func() error { return g.agreed(side) })
		for _, n := range side {
			st, err := n.app.Stats(testenv.Context(g.t))
			if err != nil || (st.Cluster.Isolated != "") != (len(side) == 1) {
				g.t.Errorf("%s: isolated: %q, %v", n.spec.Node, st.Cluster.Isolated, err)
			}
		}
	}
}

// TestLengthyNetnsOneWay: one host does not hear another. They cannot poll each other, so one of
// them goes out and the rest go on. All three serve their apps.
func TestLengthyNetnsOneWay(t *testing.T) {
	scenario(t, 30*time.Second)
	l := newLab(t, 3)
	g := l.newGroup(fast)
	g.start(g.nodes)
	w := g.work(false)
	time.Sleep(time.Second)
	begun := time.Now()
	l.rule(0, "INPUT", "-s", l.address(1), "-j", "DROP")
	g.out(g.nodes[1], begun)
	time.Sleep(3 * time.Second)
	begun = time.Now()
	l.heal()
	g.settle("a link of one way has healed", begun)
	time.Sleep(time.Second)
	w.check(nil)
}

// out waits until a node has gone out and the others go on without it.
func (g *group) out(gone *node, begun time.Time) {
	g.t.Helper()
	var others []*node
	for _, n := range g.nodes {
		if n != gone {
			others = append(others, n)
		}
	}
	testenv.Succeeds(g.t, gone.spec.Node+" to go out", func() error {
		members, err := gone.app.Members(g.t.Context())
		if err != nil {
			return err
		}
		for _, m := range members {
			if m.Node == gone.spec.Node && m.State == "in" {
				return fmt.Errorf("it is in: %+v", members)
			}
		}
		return g.agreed(others)
	})
	g.t.Logf("%s is out after %.1f s", gone.spec.Node, time.Since(begun).Seconds())
	for _, n := range g.nodes {
		members, err := n.app.Members(testenv.Context(g.t))
		testenv.Must(g.t, err)
		for _, m := range members {
			if m.Node == gone.spec.Node {
				g.t.Logf("%s has it %s: %s", n.spec.Node, m.State, m.Why)
				if m.State == "in" || m.Why == "" {
					g.t.Errorf("%s does not say what is wrong with %s: %+v", n.spec.Node, m.Node, m)
				}
			}
		}
	}
}

// TestLengthyNetnsPeerPort: gossip passes, but the port for requests is blocked at one host. The
// host must not stay the owner of keys if no other host can reach it.
func TestLengthyNetnsPeerPort(t *testing.T) {
	scenario(t, 30*time.Second)
	l := newLab(t, 3)
	g := l.newGroup(fast)
	g.start(g.nodes)
	w := g.work(false)
	time.Sleep(time.Second)
	begun := time.Now()
	l.rule(0, "INPUT", "-i", "eth0", "-p", "tcp", "--dport", peerPort, "-j", "DROP")
	g.out(g.nodes[0], begun)
	time.Sleep(3 * time.Second)
	begun = time.Now()
	l.heal()
	g.settle("the port is open again", begun)
	time.Sleep(time.Second)
	w.check(nil)
}

// TestLengthyNetnsLoss: every host loses 30 % of all packets for 20 s.
func TestLengthyNetnsLoss(t *testing.T) {
	scenario(t, 40*time.Second)
	l := newLab(t, 3)
	g := l.newGroup(fast)
	g.start(g.nodes)
	w := g.work(false)
	time.Sleep(time.Second)
	for i := range g.nodes {
		l.rule(i, "INPUT", "-i", "eth0", "-m", "statistic", "--mode", "random", "--probability", "0.3", "-j", "DROP")
	}
	time.Sleep(20 * time.Second)
	begun := time.Now()
	l.heal()
	g.settle("20 s of loss are over", begun)
	time.Sleep(time.Second)
	w.check(nil)
}

// TestLengthyNetnsTotals: hosts are cut off from one or from all others while apps count.
func TestLengthyNetnsTotals(t *testing.T) {
	scenario(t, 20*time.Second)
	l := newLab(t, 3)
	g := l.newGroup(fast)
	g.vote(g.nodes...)
	g.start(g.nodes)
	c := g.count()
	for i := range g.nodes {
		time.Sleep(500 * time.Millisecond)
		begun := time.Now()
		l.rule(i, "INPUT", "-s", l.address((i+1)%3), "-j", "DROP")
		if i > 0 {
			l.rule(i, "INPUT", "-i", "eth0", "-j", "DROP")
		}
		time.Sleep(time.Duration(2+rand.IntN(2)) * time.Second)
		l.heal()
		g.settle(g.nodes[i].spec.Node+" was cut off", begun)
	}
	time.Sleep(time.Second)
	c.check()
}
