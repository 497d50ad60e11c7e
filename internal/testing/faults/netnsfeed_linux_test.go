package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestLengthyNetnsMaxLag cuts off a host that does not follow the feed, while all reach the database. It
// becomes late, and reads of rows that change load; the others go on.
func TestLengthyNetnsMaxLag(t *testing.T) {
	scenario(t, time.Minute)
	tb, _ := newTable(t, "wal_level=logical")
	l := newLab(t, 3)
	g := l.newGroup(fast)
	tb.feeds(g)
	dsn := filepath.Join(g.dir, "dsn")
	testenv.Must(t, os.WriteFile(dsn, []byte(tb.DSN()), 0o600))
	for _, n := range g.nodes {
		n.spec.MaxLag, n.spec.Namespaces = 4*fast, fmt.Sprintf(namespaces, dsn, testenv.Patience/2)
	}
	g.start(g.nodes)
	follower := g.follower()
	cut := slices.IndexFunc(g.nodes, func(n *node) bool { return n != follower })
	has := func(n *node, seq int) func() error {
		return func() error {
			v, err := n.app.Get(testenv.Context(t), keyName(0), cachesidecar.GetOptions{})
			if err == nil && string(v.Value) != string(value(0, seq)) {
				err = fmt.Errorf("%s has %q, want number %d", n.spec.Node, v.Value, seq)
			}
			return err
		}
	}
	for _, n := range g.nodes {
		testenv.Succeeds(t, "a first value", has(n, 1))
		testenv.Succeeds(t, "the feed to be in time", n.isLate(t, false))
	}
	l.rule(cut, "INPUT", "-i", "eth0", "-j", "DROP")
	l.rule(cut, "OUTPUT", "-o", "eth0", "-j", "DROP")
	testenv.Must(t, tb.put(0, 2))
	testenv.Succeeds(t, "the host that is cut off to be late", g.nodes[cut].isLate(t, true))
	if err := has(g.nodes[cut], 2)(); err != nil {
		t.Errorf("late: %v", err)
	}
	for i, n := range g.nodes {
		if i != cut {
			testenv.Succeeds(t, "the others to have the new value", has(n, 2))
			testenv.Succeeds(t, "the others to be in time", n.isLate(t, false))
		}
	}
	begun := time.Now()
	l.heal()
	g.settle("a cut has healed", begun)
	testenv.Succeeds(t, "the host to be in time again", g.nodes[cut].isLate(t, false))
	if err := has(g.nodes[cut], 2)(); err != nil {
		t.Errorf("healed: %v", err)
	}
}
