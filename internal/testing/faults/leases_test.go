package faults

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/proctest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// runApp is an app in a process of its own, which loads one key itself. It executes one
// command per line of its input, and answers each with one line.
func runApp(socket string) int {
	ctx := context.Background()
	app, err := client.Dial(ctx, client.Config{Socket: socket, DialTimeout: testenv.Patience, RequestTimeout: testenv.Patience})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer app.Close()
	var l *client.Lease
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		what, arg, _ := strings.Cut(in.Text(), " ")
		var it cachesidecar.Item
		switch what {
		case "lease":
			it, l, err = app.Lease(ctx, arg, cachesidecar.GetOptions{})
		case "fill":
			_, err = l.Fill(ctx, []byte(arg), client.FillOptions{})
		}
		switch {
		case errors.Is(err, cachesidecar.ErrNotStored):
			fmt.Println("not stored")
		case err != nil:
			fmt.Println(err)
		case what == "fill":
			fmt.Println("stored")
		case l != nil:
			fmt.Println("token")
		default:
			fmt.Printf("value %s\n", it.Value)
		}
	}
	return 0
}

// other is such an app, as the test sees it.
type other struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// newApp starts an app of a node. It ends with the test, or before.
func (n *node) newApp(t *testing.T) *other {
	t.Helper()
	o := &other{t: t, cmd: exec.Command(os.Args[0])}
	o.cmd.Env = append(scrubbed(), asApp+"="+n.spec.Socket)
	o.cmd.Stderr = os.Stderr
	endWithParent(o.cmd)
	var err error
	if o.in, err = o.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := o.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	o.out = bufio.NewReader(out)
	if err := o.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.kill)
	return o
}

func (o *other) kill() {
	_ = o.cmd.Process.Kill()
	_ = o.cmd.Wait() // a second call fails, which does no harm
}

func (o *other) signal(s syscall.Signal) {
	o.t.Helper()
	if err := o.cmd.Process.Signal(s); err != nil {
		o.t.Fatal(err)
	}
}

// do sends a command line and returns the answer.
func (o *other) do(line string) string {
	o.t.Helper()
	if _, err := fmt.Fprintln(o.in, line); err != nil {
		o.t.Fatal(err)
	}
	answer, err := o.out.ReadString('\n')
	if err != nil {
		o.t.Fatalf("%q is not answered: %v", line, err)
	}
	return strings.TrimSpace(answer)
}

// must fails the test if the answer is not want.
func (o *other) must(line, want string) {
	o.t.Helper()
	if got := o.do(line); got != want {
		o.t.Fatalf("%q is answered %q, want %q", line, got, want)
	}
}

// claimed is the result of a LEASE.
type claimed struct {
	l   *client.Lease
	at  time.Time
	err error
}

// claim asks for a key's token. It returns once the request waits at the owner.
func (n *node) claim(t *testing.T, owner *node, key string) <-chan claimed {
	t.Helper()
	got, ctx := make(chan claimed, 1), testenv.Context(t)
	go func() { // ends with the claim, which has a deadline
		_, l, err := n.app.Lease(ctx, key, cachesidecar.GetOptions{})
		got <- claimed{l, time.Now(), err}
	}()
	testenv.Succeeds(t, "the claim to wait", func() error {
		st, err := owner.app.Stats(t.Context())
		if err == nil && st.LeaseTokens.Waiting == 0 {
			err = errors.New("nobody waits")
		}
		return err
	})
	return got
}

// token returns the token that a claim must have got.
func (c claimed) token(t *testing.T) *client.Lease {
	t.Helper()
	if c.err != nil || c.l == nil {
		t.Fatalf("a claim got %+v, want the token", c)
	}
	return c.l
}

// reads fails the test if a node reads another value; "" means none.
func (g *group) reads(key, want string) {
	g.t.Helper()
	for _, n := range g.living() {
		it, err := n.app.Get(g.t.Context(), key, cachesidecar.GetOptions{Fresh: true})
		if errors.Is(err, cachesidecar.ErrNotFound) {
			err = nil
		}
		if err != nil || string(it.Value) != want {
			g.t.Errorf("%s reads %q, %v, want %q", n.spec.Node, it.Value, err, want)
		}
	}
}

// TestLengthyProcessTokenStopped stops an app that has a token. After lease_time another app
// gets the token. When the first app continues, its FILL is not stored.
func TestLengthyProcessTokenStopped(t *testing.T) {
	scenario(t, 10*time.Second)
	const leaseTime = 2 * time.Second
	g := newGroup(t, fast, 3)
	for _, n := range g.nodes {
		n.spec.Namespaces = fmt.Sprintf("default: {lease_time: %v}", leaseTime)
	}
	g.start(g.nodes)
	here, owner, there := g.nodes[0], g.nodes[1], g.nodes[2]
	key := g.ownedBy(owner, 1)[0]
	app := here.newApp(t)
	begun := time.Now()
	app.must("lease "+key, "token")
	issued := time.Now()
	proctest.Stop(t, app.cmd.Process)
	next := <-there.claim(t, owner, key)
	l := next.token(t)
	if took := next.at.Sub(begun); took < leaseTime {
		t.Errorf("the next one had the token after %v, want %v at least", took, leaseTime)
	}
	t.Logf("a holder that stands still: the next one has the token %v after it was issued; lease_time is %v", next.at.Sub(issued).Round(time.Millisecond), leaseTime)
	if _, err := l.Fill(t.Context(), []byte("new"), client.FillOptions{}); err != nil {
		t.Fatal(err)
	}
	app.signal(syscall.SIGCONT)
	app.must("fill late", "not stored")
	g.reads(key, "new")
}

// TestProcessTokenKilled kills an app that got a token through another host than the
// key's owner. Its socket closes, and the waiting app gets the token at once.
func TestProcessTokenKilled(t *testing.T) {
	scenario(t, 10*time.Second)
	g := newGroup(t, fast, 3)
	for _, n := range g.nodes {
		n.spec.Namespaces = "default: {lease_time: 10m}" // longer than a claim waits
	}
	g.start(g.nodes)
	here, owner, there := g.nodes[0], g.nodes[1], g.nodes[2]
	var took []time.Duration
	for _, key := range g.ownedBy(owner, 9) {
		app := here.newApp(t)
		app.must("lease "+key, "token")
		waits := there.claim(t, owner, key)
		killed := time.Now()
		app.kill()
		next := <-waits
		l := next.token(t)
		took = append(took, next.at.Sub(killed))
		if _, err := l.Fill(t.Context(), []byte(key), client.FillOptions{}); err != nil {
			t.Fatal(err)
		}
		g.reads(key, key)
	}
	slices.Sort(took)
	t.Logf("a holder that is killed: the next one has the token after %v in the median, at most %v", took[len(took)/2], took[len(took)-1])
}

// TestLengthyProcessOwnerKilledBeforeFill kills the owner that issued a token. The key is
// deleted before or after that. The FILL goes to the next owner, which does not store it.
func TestLengthyProcessOwnerKilledBeforeFill(t *testing.T) {
	for _, when := range []string{"before", "after"} {
		t.Run("deleted "+when, func(t *testing.T) {
			scenario(t, 15*time.Second)
			g := newGroup(t, fast, 4)
			g.start(g.nodes)
			here, owner, there := g.nodes[0], g.nodes[1], g.nodes[2]
			key := g.ownedBy(owner, 1)[0]
			app := here.newApp(t)
			app.must("lease "+key, "token")
			deleted := func() error {
				err := there.app.Delete(t.Context(), key, cachesidecar.DeleteOptions{})
				if errors.Is(err, cachesidecar.ErrNotFound) {
					err = nil
				}
				return err
			}
			if when == "before" {
				if err := deleted(); err != nil {
					t.Fatal(err)
				}
			}
			begun := time.Now()
			owner.crash()
			if when == "after" {
				testenv.Succeeds(t, "the next owner to take a deletion", deleted)
			}
			g.settle("the owner was killed", begun)
			app.must("fill old", "not stored")
			g.reads(key, "")
			app.must("lease "+key, "token") // of the next owner
			app.must("fill new", "stored")
			g.reads(key, "new")
		})
	}
}
