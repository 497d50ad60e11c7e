package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// again starts a sidecar with a process's flags and some more.
func (p *process) again(more ...string) *process {
	args := p.cmd.Args[slices.Index(p.cmd.Args, "--node"):]
	return runSidecarAt(p.t, p.socket, append(slices.Clone(args), more...)...)
}

// TestLengthyRefusedHostHaunts checks that a host with a wrong setting is refused while it runs.
// A few seconds after it is killed the others forget it, without an operator.
func TestLengthyRefusedHostHaunts(t *testing.T) {
	testenv.Takes(t, 15*time.Second)
	t.Parallel()
	list := runCluster(t, "a", "b", "c")
	a, b, c := list[0], list[1], list[2]
	c.terminate()
	whole(t, a, b)
	c = c.again("--max-staleness", "3s")
	for _, p := range []*process{a, b} {
		testenv.Succeeds(t, "it to be refused", func() error {
			if m := p.member("c"); m.State != "refused" || !strings.Contains(m.Why, "max_staleness") {
				return fmt.Errorf("%+v", m)
			}
			return nil
		})
	}
	clean := func(when string) {
		t.Helper()
		if out := b.must("flush", "--yes"); out != "" {
			t.Errorf("%s: flush: %q", when, out)
		}
		// A slow machine may read too little.
		testenv.Succeeds(t, "a conclusion "+when, func() error {
			if o := a.at("verify", "--duration", "1s"); o.status != exitDone || strings.Contains(o.out, "c ") {
				return fmt.Errorf("%v", o)
			}
			return nil
		})
	}
	clean("while it runs")
	if o := a.at("members", "forget", "c"); o.status != exitMiss || !strings.Contains(o.err, "c is not forgotten by a: it lives: gossip hears it, state refused: stop it") {
		t.Errorf("members forget: %v", o)
	}
	c.signal(syscall.SIGKILL)
	for _, p := range []*process{a, b} {
		testenv.Succeeds(t, "it to be forgotten", func() error {
			if m := p.member("c"); m.Node != "" {
				return fmt.Errorf("%+v", m)
			}
			return nil
		})
	}
	clean("once it is gone")
	c = c.again("--max-staleness", "2s")
	whole(t, a, b, c)
}

// TestLengthyMembersForget checks that a killed host is missing, and that verify names it, until
// an operator has it forgotten, through any host and on all hosts. It may come back like
// any other host.
func TestLengthyMembersForget(t *testing.T) {
	testenv.Takes(t, 15*time.Second)
	t.Parallel()
	list := runCluster(t, "a", "b", "c")
	a, b, c := list[0], list[1], list[2]
	fails := func(status int, want string, args ...string) {
		t.Helper()
		if o := a.at(append([]string{"members", "forget"}, args...)...); o.status != status || o.out != "" || !strings.Contains(o.err, want) {
			t.Errorf("%q: %v, want status %d and %q", args, o, status, want)
		}
	}
	fails(exitMiss, "c is not forgotten by a: it lives: gossip hears it, state in: stop it", "c")
	fails(exitUsage, "a is this very host: to take it out of the cluster, stop it", "a")
	fails(exitMiss, `no host knows d: "cachesidecar members" lists those that are known`, "d")
	fails(exitUsage, "too few")
	c.signal(syscall.SIGKILL)
	c.wait()
	for _, p := range []*process{a, b} {
		testenv.Succeeds(t, "its absence", func() error {
			if s := p.member("c").State; s != "missing" {
				return fmt.Errorf("it is %q", s)
			}
			return nil
		})
	}
	// c is considered dead.
	whole(t, a, b)
	// c owns nothing.
	if o := a.at("flush", "--yes"); o.status != exitDone || o.err != "" {
		t.Errorf("flush: %v", o)
	}
	if o := a.at("verify", "--duration", "500ms"); o.status != exitMiss || !strings.Contains(o.out, "not conclusive: c is missing") {
		t.Errorf("verify: %v", o)
	}
	b.must("members", "forget", "c")
	for _, p := range []*process{a, b} {
		if m := p.member("c"); m.Node != "" {
			t.Errorf("%+v", m)
		}
		p.must("flush", "--yes")
	}
	testenv.Succeeds(t, "a conclusion", func() error {
		if o := a.at("verify", "--duration", "1s"); o.status != exitDone {
			return errors.New(o.out)
		}
		return nil
	})
	fails(exitMiss, "no host knows c", "c")
	c = c.again()
	whole(t, a, b, c)
	c.terminate()
	whole(t, a, b)
	a.must("members", "forget", "c") // a host that has left
	if m := b.member("c"); m.Node != "" {
		t.Errorf("%+v", m)
	}
}
