package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// keyText returns the text of a cluster key file. Each key repeats one of the digits.
func keyText(digits string) string {
	text := "seed: 0123456789abcdef\n"
	for _, d := range digits {
		text += "key: " + strings.Repeat(string(d), 64) + "\n"
	}
	return text
}

// key gives a node its key file.
func (n *node) key(digits string) {
	n.g.t.Helper()
	n.spec.Keys = filepath.Join(n.g.dir, n.spec.Node+".key")
	next := n.spec.Keys + "-"
	if err := errors.Join(os.WriteFile(next, []byte(keyText(digits)), 0o600), os.Rename(next, n.spec.Keys)); err != nil {
		n.g.t.Fatal(err)
	}
}

// hasTaken waits until the process has read the given number of changes of its key file.
func (n *node) hasTaken(changes int) {
	n.g.t.Helper()
	testenv.Succeeds(n.g.t, fmt.Sprintf("%s to take its keys", n.spec.Node), func() error {
		b, err := os.ReadFile(n.log)
		if err == nil && strings.Count(string(b), "cluster keys and certificates are read") < changes {
			err = errors.New("it has not")
		}
		return err
	})
}

// fewFailed fails the test if requests of apps that began after since failed. One read in a
// thousand may: on a busy machine a sidecar, or an origin, does not answer in time.
func (l *load) fewFailed(since time.Duration) {
	l.g.t.Helper()
	late := 0
	for _, o := range l.failures(since) {
		if o.kind == get && (o.out == degraded || o.out == silent || o.out == failed) {
			late++
			l.g.t.Logf("a read failed: %v", &o)
		} else {
			l.g.t.Errorf("an app's request failed: %v", &o)
		}
	}
	if most := len(l.history) / 1000; late > most {
		l.g.t.Errorf("%d reads failed because they were not answered in time: want %d at most", late, most)
	}
}

// failures returns the requests of apps that began after since and failed. A request whose
// sidecar was down in that time does not count; see node.down.
func (l *load) failures(since time.Duration) (list []op) {
	for _, o := range l.history {
		bad := o.out == degraded || o.out == unavailable || o.out == busy || o.out == failed || o.out == silent ||
			o.out == unknown || o.out == odd
		if bad && !o.gone && o.allowed != patient && o.start >= since && l.stalled(o.start-5*time.Second, o.end) == 0 {
			list = append(list, o)
		}
	}
	return list
}

// TestLengthyProcessKeyRotation changes the key on three hosts while apps read and write through
// them. Two hosts notice by watching the file, one by SIGHUP. No request fails.
// Afterwards a host with only the old key stands alone.
func TestLengthyProcessKeyRotation(t *testing.T) {
	scenario(t, time.Minute)
	g := newGroup(t, 2*fast, 3)
	for _, n := range g.nodes {
		n.key("1")
	}
	g.start(g.nodes)
	g.fill(still)
	l := g.work(false)
	begun := l.now()
	for i, digits := range []string{"12", "21", "2"} {
		for j, n := range g.nodes {
			n.key(digits)
			if j == i {
				n.signal(syscall.SIGHUP)
			}
			n.hasTaken(i + 1)
		}
	}
	time.Sleep(5 * time.Second) // long enough for effects of the last step to show
	testenv.Succeeds(t, "agreement", func() error { return g.agreed(g.nodes) })
	l.check(nil)
	l.fewFailed(begun)
	g.standsAlone("the old key", func(n *node) { n.key("1") })
}

// standsAlone starts one more host that the other three reject. It sees none of them, and
// reads none of their entries.
func (g *group) standsAlone(with string, prepare func(*node)) {
	t := g.t
	t.Helper()
	others := g.nodes[:3]
	n := g.add(testenv.FreeAddress(t))
	n.spec.Join = others[0].spec.Join
	prepare(n)
	n.start()
	ctx := testenv.Context(t)
	for end := time.Now().Add(5 * g.bound); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if it, err := n.app.Get(ctx, stillKey(0), cachesidecar.GetOptions{}); err == nil {
			t.Fatalf("a host with %s reads what the others hold: %q", with, it.Value)
		}
	}
	testenv.Succeeds(t, "agreement of the others", func() error { return g.agreed(others) })
}
