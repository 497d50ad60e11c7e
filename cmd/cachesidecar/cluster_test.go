package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// runCluster runs a sidecar for each name, on free ports, and waits until they have found
// each other.
func runCluster(t *testing.T, names ...string) []*process {
	t.Helper()
	ports, err := freePorts(2 * len(names))
	testenv.Must(t, err)
	var join []string
	for i := range names {
		join = append(join, loopback(ports[2*i]))
	}
	var list []*process
	for i, name := range names {
		list = append(list, runSidecar(t,
			"--node", name, "--l2-size", "16MiB", "--bind", join[i], "--peer-bind", loopback(ports[2*i+1]), "--join", strings.Join(join, ",")))
	}
	whole(t, list...)
	return list
}

// whole waits until the sidecars see only each other as members, and together own all
// partitions.
func whole(t *testing.T, list ...*process) {
	t.Helper()
	testenv.Succeeds(t, "the cluster", func() error {
		held := 0
		for _, p := range list {
			in := 0
			for _, m := range p.members() {
				if m.State == "in" {
					in++
				}
			}
			if in != len(list) {
				return fmt.Errorf("%d are in", in)
			}
			var st cachesidecar.Stats
			p.document(&st, "stats")
			held += st.Cluster.Owned
		}
		if held != kv.Partitions {
			return fmt.Errorf("%d partitions are held", held)
		}
		return nil
	})
}

// document runs a command with --json, and decodes its output.
func (p *process) document(into any, args ...string) {
	p.t.Helper()
	o := p.at(append(args, "--json")...)
	if err := json.Unmarshal([]byte(o.out), into); err != nil || o.status > exitMiss {
		p.t.Fatalf("%q: %v, %v", args, o, err)
	}
}

func (p *process) members() (list []cachesidecar.Member) {
	p.t.Helper()
	p.document(&list, "members")
	return list
}

// member returns what a sidecar knows of a node.
func (p *process) member(node string) cachesidecar.Member {
	p.t.Helper()
	list := p.members()
	i := slices.IndexFunc(list, func(m cachesidecar.Member) bool { return m.Node == node })
	if i < 0 {
		return cachesidecar.Member{}
	}
	return list[i]
}

// must runs a command that must succeed, and returns its stdout.
func (p *process) must(args ...string) string {
	p.t.Helper()
	o := p.at(args...)
	if o.status != exitDone || o.err != "" {
		p.t.Fatalf("%q: %v", args, o)
	}
	return o.out
}

// keyOf finds a key that a node owns.
func keyOf(t *testing.T, p *process, node string) string {
	t.Helper()
	for i := range 1000 {
		var place cachesidecar.Place
		key := fmt.Sprintf("%s%d", t.Name(), i)
		if p.document(&place, "ring", key); place.AssignedOwner == node {
			return key
		}
	}
	t.Fatalf("%s owns none of 1000 keys", node)
	return ""
}

// TestLengthyCluster uses one cache over three processes through the commands.
func TestLengthyCluster(t *testing.T) {
	testenv.Takes(t, 40*time.Second)
	t.Parallel()
	list := runCluster(t, "a", "b", "c")
	a, b, c := list[0], list[1], list[2]
	keys := map[string]string{}
	for _, node := range []string{"a", "b", "c"} {
		keys[node] = keyOf(t, a, node)
		a.must("set", keys[node], "of "+node)
	}
	step := func(name string, f func(*testing.T)) {
		t.Helper()
		if f(t); t.Failed() {
			t.Fatalf("this was %s", name)
		}
	}

	step("get", func(t *testing.T) {
		for _, p := range list {
			for node, key := range keys {
				if got := p.must("get", key); got != "of "+node {
					t.Errorf("%s: %q", key, got)
				}
			}
			out := p.must("get", keys["a"], keys["b"], keys["c"])
			if want := fmt.Sprintf("%s\tof a\n%s\tof b\n%s\tof c\n", keys["a"], keys["b"], keys["c"]); out != want {
				t.Errorf("several keys: %q, want %q", out, want)
			}
		}
		var it jsonItem
		if b.document(&it, "get", keys["b"]); it.Source != "l2" || it.AgeMS != 0 {
			t.Errorf("its own: %+v", it)
		}
		if b.document(&it, "get", keys["a"]); it.Source != "l1" && it.Source != "peer" || it.AgeMS >= 2000 {
			t.Errorf("another's: %+v", it)
		}
		if b.document(&it, "get", keys["a"], "--fresh"); it.Source != "peer" {
			t.Errorf("another's, fresh: %+v", it)
		}
	})

	step("write", func(t *testing.T) {
		for i, p := range list {
			if got, want := p.must("incr", "counter", "--initial", "1"), fmt.Sprintln(i+1); got != want {
				t.Errorf("incr: %q, want %q", got, want)
			}
		}
		key := keys["c"]
		b.must("set", key, "new", "--replace")
		if got := b.must("get", key); got != "new" { // at once, where it was written
			t.Errorf("after a write: %q", got)
		}
		a.at("set", key, "x", "--add").fails(t, "add", exitMiss, "the condition is not met")
		a.must("touch", key, "--ttl", "1h")
		a.must("del", key)
		for _, p := range list { // a copy lives for a second
			testenv.Succeeds(t, "the end of a deleted key", func() error {
				if o := p.at("get", key); o.status != exitMiss || !strings.Contains(o.err, key+": not found\n") {
					return fmt.Errorf("%v", o)
				}
				return nil
			})
		}
		b.must("set", key, "of c")
	})

	step("members", func(t *testing.T) {
		row := ` +127\.0\.0\.1:\d+ +in +16 +\d,\d{3} +[0-9a-f]+\n`
		want := regexp.MustCompile(`^NODE +ADDRESS +STATE +WEIGHT +PARTITIONS +EPOCH\na` + row + `b` + row + `c` + row + `$`)
		for _, p := range list {
			if out := p.must("members"); !want.MatchString(out) {
				t.Errorf("got:\n%s\nwant %s", out, want)
			}
			sum := 0
			for _, m := range p.members() {
				if sum += m.Partitions; m.Weight != 16 || m.Why != "" {
					t.Errorf("%+v", m)
				}
			}
			if sum != kv.Partitions {
				t.Errorf("%d partitions", sum)
			}
		}
	})

	step("ring", func(t *testing.T) {
		for node, key := range keys {
			for _, p := range list {
				if out := p.must("ring", key); !strings.HasSuffix(out, ", assigned to "+node+", owned by "+node+"\n") {
					t.Errorf("%s: %q", key, out)
				}
			}
		}
	})

	step("stats", func(t *testing.T) {
		out := c.must("stats", "--cluster")
		for _, want := range []string{`NODE +READS +HIT RATIO .* PARTITIONS +L1 COPIES .*\n`, `\na +\d`, `\nb +\d`, `\nc +\d`, `\ntotal +\d.* 48 MiB +16,384 `} {
			if !regexp.MustCompile(want).MatchString(out) {
				t.Errorf("the table lacks %q:\n%s", want, out)
			}
		}
		if strings.Contains(out, "no answer") {
			t.Errorf("somebody did not answer:\n%s", out)
		}
		var all cachesidecar.ClusterStats
		if b.document(&all, "stats", "--cluster"); len(all.Nodes) != 3 || len(all.Missing) != 0 || all.Nodes[0].Node != "a" || all.Nodes[2].Node != "c" {
			t.Errorf("%+v", all)
		}
		page := a.must("stats")
		for _, want := range []string{"l1       ", "cluster  3 hosts live, this one is in and owns ", "asked others for ", "handoffs under way: "} {
			if !strings.Contains(page, want) {
				t.Errorf("the page lacks %q:\n%s", want, page)
			}
		}
	})

	step("health", func(t *testing.T) {
		for _, p := range list {
			if out := p.must("health"); !strings.HasPrefix(out, "serving") || strings.Contains(out, "alone") {
				t.Errorf("%q", out)
			}
		}
	})

	step("flush", func(t *testing.T) {
		a.must("flush", "--yes", "--this-host")
		if o := b.at("get", keys["a"], "--fresh"); o.status != exitMiss {
			t.Errorf("what a held: %v", o)
		}
		if got := a.must("get", keys["b"]); got != "of b" {
			t.Errorf("what b holds: %q", got)
		}
		b.must("set", "k", "v", "--ns", "other")
		a.must("flush", "--yes", "--ns", "other")
		if o := c.at("get", "k", "--ns", "other"); o.status != exitMiss {
			t.Errorf("the namespace: %v", o)
		}
		if got := a.must("get", keys["c"]); got != "of c" {
			t.Errorf("what is in another namespace: %q", got)
		}
		c.must("flush", "--yes")
		for _, p := range list {
			for _, key := range keys { // no copy either
				if o := p.at("get", key); o.status != exitMiss {
					t.Errorf("%s: %v", key, o)
				}
			}
		}
	})

	step("killed", func(t *testing.T) {
		a.must("set", keys["c"], "of c")
		c.signal(syscall.SIGKILL)
		c.wait()
		b.at("get", keys["c"]).fails(t, "get", exitMiss, "the host that owns the key cannot be reached")
		a.at("set", keys["c"], "x", "--timeout", "200ms").fails(t, "set", exitMiss, `"cachesidecar members" shows the hosts`)
		testenv.Succeeds(t, "flush says which host did not answer", func() error {
			o := a.at("flush", "--yes", "--timeout", "300ms")
			if o.status != exitTimeout || !strings.Contains(o.err, "not flushed everywhere: no answer of c") {
				return fmt.Errorf("%v", o)
			}
			return nil
		})
		if out := b.must("stats", "--cluster"); !regexp.MustCompile(`^health  not well: c: no answer: .`).MatchString(out) {
			t.Errorf("stats --cluster:\n%s", out)
		}
		testenv.Succeeds(t, "a write of a key of c", func() error {
			if o := a.at("set", keys["c"], "again", "--timeout", "200ms"); o.status != exitDone {
				return errors.New(o.err)
			}
			return nil
		})
		whole(t, a, b)
		if got := b.must("get", keys["c"]); got != "again" {
			t.Errorf("%q", got)
		}
		if m := a.member("c"); m.State != "missing" || m.Why == "" || m.Partitions != 0 {
			t.Errorf("%+v", m)
		}
		if out := a.must("stats", "--cluster"); !strings.Contains(out, "c: no answer: ") {
			t.Errorf("stats --cluster:\n%s", out)
		}
		a.must("flush", "--yes") // c is considered dead
	})

	step("left", func(t *testing.T) {
		for node := range keys {
			a.must("set", keys[node], "here")
		}
		b.terminate()
		for _, key := range keys {
			if got := a.must("get", key); got != "here" {
				t.Errorf("%s: %q after b has left", key, got)
			}
		}
		if m := a.member("b"); m.State != "left" || m.Why != "" {
			t.Errorf("%+v", m)
		}
		a.healthy(exitMiss, "not ready: alone: no other host answers (c)") // b has left, and c has not
		a.must("members", "forget", "c")
		a.healthy(exitDone, "serving\n")
	})
}

// TestPortTaken checks that a port in use ends the start. The message names the setting
// and the remedy, and nothing is left behind.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	ports, err := freePorts(3)
	testenv.Must(t, err)
	tcp, err := net.Listen("tcp", loopback(ports[0]))
	testenv.Must(t, err)
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", loopback(ports[1]))
	testenv.Must(t, err)
	defer udp.Close()
	for _, tc := range []struct{ name, bind, peer, want string }{
		{"gossip, TCP", loopback(ports[0]), loopback(ports[2]), "bind " + loopback(ports[0])},
		{"gossip, UDP", loopback(ports[1]), loopback(ports[2]), "bind " + loopback(ports[1])},
		{"peers", loopback(ports[2]), loopback(ports[0]), "peer_bind " + loopback(ports[0])},
		{"both the same", loopback(ports[2]), loopback(ports[2]), "bind " + loopback(ports[2])},
		{"no address of this host", "192.0.2.1:7946", loopback(ports[2]), "bind 192.0.2.1:7946"},
	} {
		socket := filepath.Join(tempDir(t), "s")
		o := runBinary(t, "run", "--socket", socket, "--http", "off", "--bind", tc.bind, "--peer-bind", tc.peer, "--insecure")
		if o.status != exitMiss || !strings.Contains(o.err, tc.want) || !strings.Contains(o.err, "give an address of this host and a port that is free") {
			t.Errorf("%s: %v\nwant status %d, %q and the remedy", tc.name, o, exitMiss, tc.want)
		}
		if strings.Contains(o.err, `"msg":"serving"`) {
			t.Errorf("%s: it said that it serves: %v", tc.name, o)
		}
		if _, err := os.Lstat(socket); !os.IsNotExist(err) {
			t.Errorf("%s: the socket is there: %v", tc.name, err)
		}
	}
}

// healthy waits until health ends with a status, and says something.
func (p *process) healthy(status int, want string) {
	p.t.Helper()
	testenv.Succeeds(p.t, "health says "+want, func() error {
		if o := p.at("health"); o.status != status || !strings.Contains(o.out+o.err, want) {
			return fmt.Errorf("%v", o)
		}
		return nil
	})
}

// TestJoinLater checks that a sidecar whose join addresses are wrong or do not answer
// serves alone, is not healthy, and finds the other host when that starts.
func TestJoinLater(t *testing.T) {
	testenv.Takes(t, 8*time.Second)
	t.Parallel()
	ports, err := freePorts(4)
	testenv.Must(t, err)
	first := runSidecar(t, "--node", "first", "--bind", loopback(ports[0]), "--peer-bind", loopback(ports[1]),
		"--join", "no-such-host.invalid:7946,"+loopback(ports[2]), "--insecure", "--l2-size", "16MiB")
	first.waitFor("word of it", first.log, func(log string) bool {
		return strings.Contains(log, "no host answers at the join addresses") && strings.Contains(log, "no-such-host.invalid")
	})
	if o := first.at("health"); o.status == exitMiss && !strings.Contains(o.err, "it looks for other hosts at the join addresses") {
		t.Errorf("health at the start: %v", o)
	}
	first.must("set", "k", "v") // may wait until its timeout
	first.healthy(exitMiss, "not ready: alone: no host answers at the join addresses ("+
		loopback(ports[2])+", no-such-host.invalid:7946); set alone_ok if it may be alone\n")
	if o := first.at("verify", "--duration", "100ms"); o.status != exitMiss || strings.Contains(o.out, "kept") ||
		!strings.Contains(o.out, "not conclusive: this host is alone: no host answers at the join addresses (") {
		t.Errorf("verify: %v", o)
	}
	if out := first.must("stats"); !strings.Contains(out, "not ready: alone: no host answers at the join addresses (") {
		t.Errorf("stats: %s", out)
	}
	second := runSidecar(t, "--node", "second", "--bind", loopback(ports[2]), "--peer-bind", loopback(ports[3]), "--join", loopback(ports[0]), "--l2-size", "16MiB")
	whole(t, first, second)
	for _, p := range []*process{first, second} {
		if got := p.must("get", "k"); got != "v" {
			t.Errorf("%q", got)
		}
		if out := p.must("health"); !strings.HasPrefix(out, "serving") || strings.Contains(out, "alone") {
			t.Errorf("health: %q", out)
		}
	}
}

// pair runs a sidecar, and another one that joins it.
func pair(t *testing.T, flags ...string) (first, second *process) {
	t.Helper()
	ports, err := freePorts(4)
	testenv.Must(t, err)
	first = runSidecar(t, "--node", "first", "--bind", loopback(ports[0]), "--peer-bind", loopback(ports[1]), "--l2-size", "16MiB")
	second = runSidecar(t, append([]string{
		"--node", "second", "--bind", loopback(ports[2]), "--peer-bind", loopback(ports[3]), "--join", loopback(ports[0]), "--l2-size", "16MiB",
	}, flags...)...)
	return first, second
}

// TestLengthyOtherCluster checks that two clusters with each other's addresses stay separate.
func TestLengthyOtherCluster(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	t.Parallel()
	first, second := pair(t, "--cluster", "other")
	first.must("set", "k", "first")
	second.must("set", "k", "second")
	for p, want := range map[*process]string{first: "first", second: "second"} {
		if got := p.must("get", "k"); got != want || len(p.members()) != 1 {
			t.Errorf("%q, %+v", got, p.members())
		}
	}
	second.healthy(exitMiss, "not ready: alone: no host answers at the join addresses (127.0.0.1:")
}

// TestLengthyOtherStaleness checks that a host with another max_staleness is refused, that both
// values are reported, and that the cluster continues.
func TestLengthyOtherStaleness(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	testenv.ReadsClock(t, 2*time.Second, "the two try each other again and again: nothing more may be logged")
	t.Parallel()
	first, second := pair(t, "--max-staleness", "1s")
	told := func(s string) bool {
		return strings.Contains(s, `max_staleness is "1s"`) && strings.Contains(s, `"2s"`) || strings.Contains(s, `max_staleness is "2s"`) && strings.Contains(s, `"1s"`)
	}
	for p, other := range map[*process]string{first: "second", second: "first"} {
		p.waitFor("both values", p.log, func(log string) bool { return told(strings.ReplaceAll(log, `\"`, `"`)) })
		testenv.Succeeds(t, "the member to be refused", func() error {
			if m := p.member(other); m.State != "refused" || !told(m.Why) {
				return fmt.Errorf("%+v", m)
			}
			return nil
		})
	}
	// The words are those of the host that has refused the other one before.
	if row := regexp.MustCompile(`(?m)^second +\S+ +refused .*`).FindString(first.must("members")); !told(row) {
		t.Errorf("members: %q", row)
	}
	first.must("set", "k", "v")
	if out := first.must("health"); !strings.HasPrefix(out, "serving, not well: refused hosts: 1 (`cachesidecar members` says why)") {
		t.Errorf("health of the first: %q", out)
	}
	testenv.Succeeds(t, "the second to know its reason", func() error {
		if o := second.at("health"); !strings.Contains(o.err, "not joined: ") {
			return errors.New(o.err)
		}
		return nil
	})
	if o := second.at("health"); o.status != exitMiss || !strings.Contains(o.err, "not ready: not joined: ") || !strings.Contains(o.err, "max_staleness") {
		t.Errorf("health of the second: %v", o)
	}
	if o := second.at("set", "k", "v"); o.status == exitDone || !strings.Contains(o.err, "max_staleness") {
		t.Errorf("a write through the second: %v", o)
	}
	time.Sleep(2 * time.Second)
	for _, p := range []*process{first, second} {
		if n := strings.Count(p.log.String(), "a host is refused"); n > 2 {
			t.Errorf("it is said %d times:\n%s", n, p.log)
		}
	}
}

// TestLengthyOneNameTwice checks that two processes of one name both report it, and that the
// first continues.
func TestLengthyOneNameTwice(t *testing.T) {
	testenv.Takes(t, 15*time.Second)
	t.Parallel()
	first, second := pair(t, "--node", "first")
	first.must("set", "k", "v")
	for _, p := range []*process{first, second} {
		p.waitFor("word of the other", p.log, func(log string) bool {
			return strings.Contains(log, "two processes call themselves by one name: names must be unique, set node")
		})
	}
	if out := second.must("members"); !strings.Contains(out, "two processes call themselves") {
		t.Errorf("members of the newcomer:\n%s", out)
	}
	if got := first.must("get", "k"); got != "v" {
		t.Errorf("%q", got)
	}
}

// TestLengthyVerify checks that three hosts keep the promise, and that VERIFY is not conclusive
// if a host is missing.
func TestLengthyVerify(t *testing.T) {
	testenv.Takes(t, 10*time.Second)
	t.Parallel()
	list := runCluster(t, "a", "b", "c")
	var v cachesidecar.Verified
	// A slow machine may read too little.
	testenv.Succeeds(t, "a conclusion", func() error {
		o := list[1].at("verify", "--duration", "2s", "--json")
		if err := json.Unmarshal([]byte(o.out), &v); err != nil {
			t.Fatalf("%v: %v", err, o)
		}
		if v.ViolationsTotal > 0 {
			t.Fatalf("%v", v.Violations)
		}
		if o.status != exitDone {
			return fmt.Errorf("%v", v.Inconclusive)
		}
		return nil
	})
	if len(v.Nodes) != 3 || v.Writes == 0 || len(v.Checked) != 3 {
		t.Errorf("got %+v", v)
	}
	for _, n := range v.Nodes {
		if n.L1 == 0 || n.L2 == 0 || n.Peer == 0 || n.Fresh == 0 {
			t.Errorf("%s has read too little: %+v", n.Node, n)
		}
	}
	list[0].at("set", "k", "v", "--ns", "_verify").fails(t, "its namespace is open to apps", exitUsage, "_verify")
	list[2].signal(syscall.SIGKILL)
	testenv.Succeeds(t, "its absence", func() error {
		if s := list[0].member("c").State; s != "missing" {
			return fmt.Errorf("it is %s", s)
		}
		return nil
	})
	o := list[0].at("verify", "--duration", "500ms")
	if o.status != exitMiss || !strings.Contains(o.out, "not conclusive: c") || strings.Contains(o.out, "kept:") {
		t.Errorf("with one that is dead: %v", o)
	}
}
