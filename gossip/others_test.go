package gossip

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// machineOf returns the addresses of a machine that has one, or none.
func machineOf(address string) []netip.Addr {
	if address == "" {
		return nil
	}
	return []netip.Addr{netip.MustParseAddr(address)}
}

// TestIsOwn checks which join addresses lead to the node itself.
func TestIsOwn(t *testing.T) {
	const host, other, loop, loop2, v6, link = "10.0.0.1:7946", "10.0.0.2:7946", "127.0.0.1:7946", "127.0.0.2:7946",
		"[fd00::1]:7946", "[fe80::1%eth0]:7946"
	for _, tc := range []struct{ own, address, machine string }{
		{host, host, ""},
		{host, loop, ""},      // nothing but this machine is there,
		{host, loop2, ""},     // as at Debian's 127.0.1.1
		{host, v6, "fd00::1"}, // beside it, of one name
		{host, link, "fe80::1"},
		{host, other, "10.0.0.2"},
		{loop, loop, ""},
		{loop, "[::1]:7946", ""}, // localhost has both
		{"[::1]:7946", loop, ""},
	} {
		if !isOwn(tc.address, tc.own, machineOf(tc.machine)) {
			t.Errorf("%s is not %s's own, of a machine that has %q", tc.address, tc.own, tc.machine)
		}
	}
	for _, tc := range []struct{ own, address, machine string }{
		{host, other, ""},
		{host, "10.0.0.1:7956", "10.0.0.1"}, // another sidecar of the machine
		{host, "10.0.0.2:7956", "10.0.0.2"},
		{loop, loop2, "127.0.0.1"},
		{loop, host, "10.0.0.1"}, // at loopback, others do not reach it
		{host, "name.test:7946", "10.0.0.1"},
	} {
		if isOwn(tc.address, tc.own, machineOf(tc.machine)) {
			t.Errorf("%s is %s's own, of a machine that has %q", tc.address, tc.own, tc.machine)
		}
	}
}

// TestOthers checks at which join addresses a node takes others to be: by names too, that are
// found late, lead to the node itself, change, or cannot be looked up for a while.
func TestOthers(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		var answer atomic.Pointer[[]string] // nil: the lookup fails
		n := c.start(1, join("sidecars.test:7946", addressOf(1)), func(cfg *Config) {
			cfg.Resolve = func(context.Context, string) ([]string, error) {
				if list := answer.Load(); list != nil {
					return *list, nil
				}
				return nil, errors.New("no such host")
			}
		})
		is := func(what string, want ...string) {
			t.Helper()
			if c.until(what, 2*rejoinEvery, func() bool { return slices.Equal(n.Others(), want) }); t.Failed() {
				t.Fatalf("others: %q, want %q", n.Others(), want)
			}
		}
		if got := n.Others(); !slices.Equal(got, []string{"sidecars.test:7946"}) {
			t.Errorf("before the first lookup: %q", got)
		}
		time.Sleep(time.Minute)
		is("the name is not found", "sidecars.test:7946")
		answer.Store(&[]string{ipOf(1)})
		is("the name is this node's")
		answer.Store(&[]string{ipOf(1), ipOf(2), "::ffff:" + ipOf(2)})
		is("another one has come", addressOf(2))
		answer.Store(nil)
		time.Sleep(time.Minute)
		is("the last answer counts", addressOf(2))
		answer.Store(&[]string{ipOf(1)})
		is("the other one has gone")
	})
}

// TestOthersBeforeRun: before the first lookup, addresses are known and names are not.
func TestOthersBeforeRun(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		hung := func(ctx context.Context, _ string) ([]string, error) { <-ctx.Done(); return nil, ctx.Err() }
		n := c.start(0, join(addressOf(0), addressOf(7), addressOf(8), "hangs.test:7946"), func(cfg *Config) {
			cfg.Resolve = hung
			cfg.Interfaces = func() ([]net.Addr, error) { return []net.Addr{&net.IPNet{IP: net.ParseIP(ipOf(8))}}, nil }
		})
		if want := []string{addressOf(7), "hangs.test:7946"}; !slices.Equal(n.Others(), want) {
			t.Errorf("others: %q, want %q", n.Others(), want)
		}
	})
}
