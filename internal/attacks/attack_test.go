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
)

// stranger is the user of attackers, where the tests run as root.
const stranger = 65534

// attack is one way to hurt a sidecar's other clients.
type attack struct {
	name  string
	tries string // what it tries, for the table
	bound string // what holds it, for the table

	hosts int // of a cluster; 0 is one host that is alone

	keyed  bool                                          // the hosts have a cluster key
	config func(t testing.TB, origin, dir string) string // their file, if they need one
	files  int                                           // their limit of open files; 0 is as it is
	also   []also                                        // what else the victim asks
	shares bool                                          // measured as the victim's user, too
	other  bool                                          // by another user alone: the victim's may do that
	load   bool                                          // it is about time alone
	shown  func(h *house, r report) error                // what must hold of the hosts afterwards

	// run attacks until ctx ends. Errors are those of the attacker's own making.
	run func(ctx context.Context, j *job) error
}

// attacks are all of them.
func attacks() []attack {
	return slices.Concat(
		keyAttacks, frameAttacks, shareAttacks, floodAttacks, httpAttacks, originAttacks,
		peerAttacks, gossipAttacks, keyedAttacks,
	)
}

// target is what an attacker is told of its victim's hosts: first the one whose
// apps are the victims.
type target struct {
	Hosts  []endpoint
	Origin string // where it listens, if it plays an origin
}

// order tells a process that it is an attacker, and whose.
type order struct {
	Attack string
	Target target
	User   int // 0 is the one that it has
	Run    time.Duration
	Round  int
}

// report is what an attacker has done, and seen.
type report struct {
	Count   int64    // of connections, requests or packets, as it counts
	Learned []string // what it should not have been told, or could do
}

// job is an attack under way.
type job struct {
	order
	count   atomic.Int64
	mu      sync.Mutex
	learned []string
}

// victim is the host that the attack is about.
func (j *job) victim() endpoint { return j.Target.Hosts[0] }

func (j *job) learn(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.learned) < 20 {
		j.learned = append(j.learned, fmt.Sprintf(format, args...))
	}
}

// crowd runs n of f side by side, each again and again until ctx ends.
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

// asAttacker is the environment's order to this binary.
const asAttacker = "ATTACKS_ORDER"

// graceOfEnd is how long an attacker may take to end once it is told to.
const graceOfEnd = 5 * time.Second

// attackAs is this process's life where it is an attacker, until its time or its
// stdin ends.
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

// become gives up this process's user. What it needs of the tests' files it has
// read by then.
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
	if err != nil {
		t.Fatal(err)
	}
	a := &attacker{cmd: exec.Command(os.Args[0]), out: make(chan string, 1)}
	a.cmd.Env = append(scrubbed(), asAttacker+"="+string(text))
	a.cmd.Stderr = os.Stderr
	endWithParent(a.cmd)
	in, err := a.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	a.stdin = in
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
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

// end tells the attacker to end, and returns what it says.
func (a *attacker) end(t testing.TB) (r report) {
	t.Helper()
	_ = a.stdin.Close()
	line := <-a.out
	if line == "" {
		return r // it took too long to end, with thousands of connections
	}
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		t.Errorf("the attacker wrote %q: %v", line, err)
	}
	return r
}
