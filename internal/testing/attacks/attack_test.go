package attacks

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/proctest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// stranger is the user of attackers if the tests run as root.
const stranger = 65534

// attack is one way to hurt a sidecar's other clients.
type attack struct {
	name  string
	tries string // what it tries, for the table
	bound string // what limits it, for the table

	hosts int // of a cluster; 0: one host, without a cluster

	keyed bool // the hosts have a cluster key
	// config returns the hosts' configuration file, if they need one.
	config func(t testing.TB, origin, dir string) string
	files  int           // their limit of open files; 0: unchanged
	listed int           // their namespaces with a key filter, of listedKeys
	conns  int           // connections of apps that they take; 0: 1,000
	tcp    bool          // apps connect over TCP, too
	also   []also        // further requests of the victim
	shares bool          // also measured as the victim's user
	other  bool          // only by another user: the victim's user may do that
	load   bool          // it concerns only time
	lasts  time.Duration // if it is not timed; zero: brief
	// shown checks what must hold of the hosts afterwards.
	shown func(h *house, r report) error

	// run attacks until ctx ends. It returns only errors of the attacker's own setup.
	run func(ctx context.Context, j *job) error
}

// attacks returns all attacks.
func attacks() []attack {
	return slices.Concat(
		keyAttacks, frameAttacks, memoryAttacks, shareAttacks, floodAttacks, httpAttacks, originAttacks,
		peerAttacks, gossipAttacks, keyedAttacks,
	)
}

// target is what an attacker knows of the hosts. The first one serves the victims.
type target struct {
	Hosts  []endpoint
	Origin string // the address of the attacker's origin, if it plays one
}

// order makes a process an attacker.
type order struct {
	Attack string
	Target target
	User   int // 0: the user of this process
	Run    time.Duration
	Round  int
}

// report is an attacker's result.
type report struct {
	Count   int64    // connections, requests or packets, depending on the attack
	Learned []string // what it should not have learned or been able to do
}

// job is an attack under way.
type job struct {
	order
	count   atomic.Int64
	mu      sync.Mutex
	learned []string
}

// victim returns the host that is attacked.
func (j *job) victim() endpoint { return j.Target.Hosts[0] }

func (j *job) learn(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.learned) < 20 {
		j.learned = append(j.learned, fmt.Sprintf(format, args...))
	}
}

// crowd runs n calls of f concurrently, each again and again until ctx ends.
func (j *job) crowd(ctx context.Context, n int, f func(i int) error) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := f(i); err != nil {
					rest(ctx, 10*time.Millisecond) // it was cut off, as it should be
				}
			}
		})
	}
	wg.Wait()
}

// asAttacker is the environment variable that makes this binary an attacker.
const asAttacker = "ATTACKS_ORDER"

// graceOfEnd is how long an attacker may take to end when it is told to.
const graceOfEnd = 5 * time.Second

// attackAs runs this process as an attacker, until its time or its stdin ends.
func attackAs(text string) int {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	list := attacks()
	at := slices.IndexFunc(list, func(a attack) bool { return a.name == o.Attack })
	if at < 0 {
		fmt.Fprintf(os.Stderr, "no attack %q\n", o.Attack)
		return 1
	}
	if err := become(o.User); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.Run)
	defer cancel()
	go func() { // ends with the process
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
		time.Sleep(graceOfEnd)
		os.Exit(1)
	}()
	j := &job{order: o}
	if err := list[at].run(ctx, j); err != nil && !errors.Is(err, ctx.Err()) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", o.Attack, err)
		return 1
	}
	<-ctx.Done()
	j.mu.Lock()
	defer j.mu.Unlock()
	_ = json.NewEncoder(os.Stdout).Encode(report{j.count.Load(), j.learned})
	return 0
}

// become gives up this process's user. It reads the tests' files that it needs first.
func become(user int) error {
	loadSeeds()
	if user == 0 {
		return nil
	}
	return errors.Join(syscall.Setgroups(nil), syscall.Setgid(user), syscall.Setuid(user))
}

// attacker is an attacker's process.
type attacker struct {
	cmd   *exec.Cmd
	stdin io.Closer
	out   chan string
}

// send starts an attacker.
func send(t testing.TB, o order) *attacker {
	t.Helper()
	text, err := json.Marshal(o)
	testenv.Must(t, err)
	a := &attacker{cmd: exec.Command(os.Args[0]), out: make(chan string, 1)}
	a.cmd.Env = append(scrubbed(), asAttacker+"="+string(text))
	a.cmd.Stderr = os.Stderr
	proctest.EndWithParent(a.cmd)
	in, err := a.cmd.StdinPipe()
	testenv.Must(t, err)
	a.stdin = in
	out, err := a.cmd.StdoutPipe()
	testenv.Must(t, err)
	testenv.Must(t, a.cmd.Start())
	go func() { // ends with the attacker
		s := bufio.NewScanner(out)
		line := ""
		for s.Scan() {
			line = s.Text()
		}
		_ = a.cmd.Wait()
		a.out <- line
	}()
	return a
}

// end makes the attacker end, and returns its report.
func (a *attacker) end(t testing.TB) (r report) {
	t.Helper()
	_ = a.stdin.Close()
	line := <-a.out
	const panicked = 2
	switch {
	case a.cmd.ProcessState.ExitCode() == panicked:
		t.Error("the attacker has panicked: the attack was not made")
		return r
	case line == "":
		return r // it took too long to end, with thousands of connections
	}
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		t.Errorf("the attacker wrote %q: %v", line, err)
	}
	return r
}
