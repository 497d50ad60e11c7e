package faults

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/proctest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestLengthyRollingUpgrade runs the previous commit's command and this tree's in one cluster,
// while apps read, write, delete and load through all hosts. Hosts are replaced one by
// one by the new command, then back, and then two of three are new for a while. Clients of
// both commands ask sidecars of both.
//
// No value is wrong or older than the bound. No request of an app fails on a host that
// stays. On a host that is replaced, no request fails but those that run between SIGTERM
// and the first answer of the next process. A read that misses because the key's owner
// cannot be asked at that moment is a miss to the app; at most one in a thousand may be.
func TestLengthyRollingUpgrade(t *testing.T) {
	scenario(t, time.Minute)
	before, now := builtPrevious(t), built(t)
	for _, keyed := range []bool{false, true} {
		name := map[bool]string{false: "plain", true: "with a cluster key"}[keyed]
		t.Run(name, func(t *testing.T) { newUpgrade(t, before, now, keyed).run() })
	}
}

// upgrade is a cluster whose hosts are replaced.
type upgrade struct {
	*group
	before, now string // the commands
	load        *load
	gaps        []string
}

func newUpgrade(t *testing.T, before, now string, keyed bool) *upgrade {
	u := &upgrade{group: newGroup(t, fast, 3), before: before, now: now}
	p := newPages(t)
	for _, n := range u.nodes {
		n.program, n.spec.Namespaces = before, p.settings(queueTime)
		if keyed {
			n.key("1")
		}
	}
	u.start(u.nodes)
	u.load = u.work(false)
	u.load.browse(p)
	return u
}

func (u *upgrade) run() {
	begun := u.load.now()
	heard := u.listen(u.nodes[0], u.before)
	for i, n := range u.nodes {
		u.replace(n, u.now)
		if i == 0 {
			u.clients("one is new")
		}
	}
	for _, n := range u.nodes {
		u.replace(n, u.before)
	}
	u.replace(u.nodes[1], u.now)
	u.replace(u.nodes[2], u.now)
	heardByNew := u.listen(u.nodes[0], u.now)
	u.clients("one is old")
	heard()
	heardByNew()
	u.load.outages = []stall{{0, never}} // on a busy machine a load may take longer than its time
	u.load.check(nil)
	u.load.fewFailed(begun)
	u.load.found(firstPage)
	u.t.Logf("no host was asked for: %s", strings.Join(u.gaps, ", "))
}

// replace ends a host's process and starts a program in its place.
func (u *upgrade) replace(n *node, program string) {
	u.t.Helper()
	begun := time.Now()
	n.leave()
	n.program = program
	n.start()
	u.gaps = append(u.gaps, fmt.Sprintf("%s %.2f s", n.spec.Node, time.Since(begun).Seconds()))
	u.settle(n.spec.Node+" is replaced", begun)
}

// clients asks every host with the clients of both commands.
func (u *upgrade) clients(when string) {
	u.t.Helper()
	for i, n := range u.nodes {
		for j, program := range []string{u.before, u.now} {
			other := []string{u.now, u.before}[j]
			key, val := fmt.Sprintf("cli-%d-%d", i, j), when+" "+n.spec.Node
			for _, step := range []struct {
				program, words, want string
			}{
				{program, "set --ack all " + key + " WORD", ""},
				{other, "get " + key, val},
				{program, "get --json " + key, `"found":true`},
				{program, "touch --ttl 1m " + key, ""},
				{other, "del " + key, ""},
				{program, "incr --initial 5 n-" + key, ""},
				{program, "members --json", `"n02"`},
				{program, "ring --json " + key, `"assigned_owner"`},
				{program, "stats --json", `"namespaces"`},
				{program, "stats --cluster", "n01"},
				{program, "bench --duration 50ms --keys 200 --conns 2", "requests/s"},
			} {
				words := strings.Fields(step.words)
				for i := range words {
					if words[i] == "WORD" {
						words[i] = val
					}
				}
				out, err := n.command(step.program, words...)
				if err != nil || !strings.Contains(strings.ReplaceAll(out, `": `, `":`), step.want) {
					u.t.Errorf("%s: %s of %s at %s: %q, %v; want %q", when, step.words, step.program, n.spec.Node, out, err, step.want)
				}
			}
		}
	}
}

// listen starts the command "watch" of a program at a node, and waits until it follows.
// The returned function ends it when it has printed some changes.
func (u *upgrade) listen(n *node, program string) (stop func()) {
	u.t.Helper()
	ctx, cancel := context.WithCancel(u.t.Context())
	cmd := exec.CommandContext(ctx, program, "watch", "--json", "--socket", n.spec.Socket)
	cmd.Env, cmd.WaitDelay, cmd.Stderr = scrubbed(), time.Second, os.Stderr
	proctest.EndWithParent(cmd)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	testenv.Must(u.t, err)
	var changes atomic.Int64
	over := make(chan struct{})
	lines := bufio.NewScanner(out)
	lines.Scan() // the reset that begins the stream
	go func() {  // ends with the command
		defer close(over)
		for lines.Scan() {
			var event struct{ Kind string }
			if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
				u.t.Errorf("watch of %s prints %q: %v", program, lines.Bytes(), err)
			}
			if event.Kind == "changed" {
				changes.Add(1)
			}
		}
	}()
	end := func() error {
		cancel()
		<-over
		return cmd.Wait()
	}
	u.t.Cleanup(func() { _ = end() })
	return func() {
		testenv.Succeeds(u.t, "watch of "+program+" to hear of changes", func() error {
			if n := changes.Load(); n < 20 {
				return fmt.Errorf("%d", n)
			}
			return nil
		})
		_ = end()
	}
}
