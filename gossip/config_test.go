package gossip

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func TestBadConfig(t *testing.T) {
	ok := Config{Node: "a", Cluster: "test", Bind: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)}
	for _, tc := range []struct {
		name string
		edit func(*Config)
		want []string // in the error: thing, value, remedy
	}{
		{"a long cluster", func(c *Config) { c.Cluster = strings.Repeat("n", 256) }, []string{"as a label: too long"}},
		{"no bind", func(c *Config) { c.Bind = "" }, []string{`bind address ""`}},
		{"no host", func(c *Config) { c.Bind = ":7946" }, []string{`bind address ":7946"`}},
		{"a port too high", func(c *Config) { c.Bind = "127.0.0.1:70000" }, []string{`bind address "127.0.0.1:70000"`}},
		{"a name", func(c *Config) { c.Bind = "host.test:7946" }, []string{`bind address "host.test:7946"`}},
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
				testenv.Must(t, err)
				defer ln.Close()
				address = ln.Addr().String()
			} else {
				pc, err := net.ListenPacket("udp", "127.0.0.1:0")
				testenv.Must(t, err)
				defer pc.Close()
				address = pc.LocalAddr().String()
			}
			_, err := New(Config{Node: "a", Bind: address, Log: slog.New(slog.DiscardHandler)})
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
		cfg := Config{
			Node: name, Cluster: "test", Bind: "localhost:0", Receive: func(b []byte) { received <- string(b) },
			Known: func(Member) bool { return true }, Log: slog.New(slog.DiscardHandler),
		}
		edit(&cfg)
		g, err := New(cfg)
		testenv.Must(t, err)
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
		c.Bind, c.Advertise = "0.0.0.0:0", "127.0.0.1"
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
