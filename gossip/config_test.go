package gossip

import (
	"context"
	"net"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func TestBadConfig(t *testing.T) {
	ok := Config{Node: "a", Cluster: "test", Bind: "127.0.0.1:0"}
	for _, tc := range []struct {
		name string
		edit func(*Config)
		want []string // in the error: thing, value, remedy
	}{
		{"no node", func(c *Config) { c.Node = "" }, []string{"node name of 0 bytes", "give 1 to 256"}},
		{"a long node", func(c *Config) { c.Node = strings.Repeat("n", 257) }, []string{"node name of 257 bytes", "give 1 to 256"}},
		{"a long cluster", func(c *Config) { c.Cluster = strings.Repeat("n", 256) }, []string{"cluster name of 256 bytes", "give 255 at most"}},
		{"no bind", func(c *Config) { c.Bind = "" }, []string{`bind address ""`, "give host:port"}},
		{"no port", func(c *Config) { c.Bind = "127.0.0.1" }, []string{`bind address "127.0.0.1"`, "give host:port"}},
		{"no host", func(c *Config) { c.Bind = ":7946" }, []string{`bind address ":7946"`, "give host:port", "there is no host"}},
		{"a port too high", func(c *Config) { c.Bind = "127.0.0.1:70000" }, []string{`bind address "127.0.0.1:70000"`, "give host:port", "out of range"}},
		{"a port that is none", func(c *Config) { c.Bind = "127.0.0.1:gossip" }, []string{`bind address "127.0.0.1:gossip"`, "give host:port"}},
		{"a name", func(c *Config) { c.Bind = "host.test:7946" }, []string{`bind address "host.test:7946"`, "give ip:port"}},
		{"a zone", func(c *Config) { c.Bind = "[fe80::1%lo]:7946" }, []string{`bind address "[fe80::1%lo]:7946"`, "give ip:port", "zone"}},
		{"all addresses", func(c *Config) { c.Bind = "0.0.0.0:0" }, []string{`bind address "0.0.0.0:0"`, "advertise"}},
		{"all addresses, IPv6", func(c *Config) { c.Bind = "[::]:0" }, []string{`bind address "[::]:0"`, "advertise"}},
		{"advertise a name", func(c *Config) { c.Advertise = "host.test:7946" }, []string{`advertise address "host.test:7946"`, "give ip:port"}},
		{"advertise all addresses", func(c *Config) { c.Advertise = "0.0.0.0:7946" }, []string{`advertise address "0.0.0.0:7946"`, "the one address"}},
		{"join without port", func(c *Config) { c.Join = []string{"10.0.0.1"} }, []string{`join address "10.0.0.1"`, "give host:port"}},
		{"another host's address", func(c *Config) { c.Bind = "192.0.2.1:7946" }, []string{"192.0.2.1:7946", "give an address of this host"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := ok
			tc.edit(&cfg)
			g, err := New(cfg)
			if err == nil {
				_ = g.Close()
				t.Fatal("it was taken")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
	if g, err := New(ok); err != nil {
		t.Errorf("the rest is well: %v", err)
	} else {
		_ = g.Close()
	}
}

// TestPortInUse: the error names the address and the remedy.
func TestPortInUse(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) {
			var address string
			if network == "tcp" {
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer ln.Close()
				address = ln.Addr().String()
			} else {
				pc, err := net.ListenPacket("udp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer pc.Close()
				address = pc.LocalAddr().String()
			}
			_, err := New(Config{Node: "a", Bind: address})
			if err == nil {
				t.Fatal("it was taken")
			}
			for _, want := range []string{address, "address already in use", "give", "a port that is free"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

// TestSockets does the same over UDP and TCP, for a moment. A name in Bind is never
// taken for all addresses of the host, as memberlist would take it.
func TestSockets(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 2)
	received := make(chan string, 100)
	run := func(name string, edit func(*Config)) *Gossip {
		cfg := Config{Node: name, Cluster: "test", Bind: "localhost:0", Receive: func(b []byte) { received <- string(b) }}
		edit(&cfg)
		g, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		go func() { done <- g.Run(ctx) }()
		return g
	}
	a := run("a", func(*Config) {})
	host, p, err := net.SplitHostPort(a.Address())
	if err != nil || host != "127.0.0.1" || p == "0" {
		t.Fatalf("address %q, %v", a.Address(), err)
	}
	if second, err := net.Listen("tcp", "127.0.0.2:0"); err == nil { // this host has one
		second.Close()
		if ln, err := net.Listen("tcp", "127.0.0.2:"+p); err != nil {
			t.Errorf("it listens on another address too: %v", err)
		} else {
			ln.Close()
		}
	}
	b := run("b", func(c *Config) {
		c.Bind, c.Advertise = "0.0.0.0:0", "127.0.0.1:0"
		c.Join = []string{net.JoinHostPort("localhost", p)} // a name
	})
	testenv.Eventually(t, "they find each other", func() bool { return len(a.Members()) == 1 && len(b.Members()) == 1 })
	if got := a.Members()[0].Address; got != b.Address() {
		t.Errorf("the other is at %s, and advertises %s", got, b.Address())
	}
	if _, p, _ := net.SplitHostPort(b.Address()); p == "0" {
		t.Errorf("it advertises %s", b.Address())
	}
	b.Broadcast([]byte("hello"))
	if got := <-received; got != "hello" {
		t.Errorf("received %q", got)
	}
	stop()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	// memberlist does not wait for its goroutines.
	testenv.Eventually(t, "its goroutines end", func() bool { return goleak.Find() == nil })
}
