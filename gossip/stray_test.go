package gossip

import (
	"crypto/rand"
	"io"
	"log/slog"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	gt "github.com/cachesidecar/cachesidecar/internal/testing/gossiptest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestStrayDatagramCost: with keys, a stray datagram is tried with each key and
// counted, and nothing more. It costs little.
func TestStrayDatagramCost(t *testing.T) {
	const packets, keys = 2000, 3
	cfg := Config{Node: "a", Cluster: "test", Bind: "127.0.0.1:0"}
	c, err := cfg.memberlist()
	testenv.Must(t, err)
	var ring [][]byte
	for range keys {
		k := make([]byte, 32)
		_, _ = rand.Read(k)
		ring = append(ring, k)
	}
	if c.Keyring, err = memberlist.NewKeyring(ring, ring[0]); err != nil {
		t.Fatal(err)
	}
	written := 0
	log := slog.New(slog.NewTextHandler(writer(func(b []byte) { written++ }), nil))
	g := &Gossip{cfg: Config{Log: log}}
	c.Logger = g.logger()
	tr, err := newTransport(c, &filter{cluster: "test", keyed: true, garbage: &g.garbage})
	testenv.Must(t, err)
	c.Transport = tr
	list, err := memberlist.Create(c)
	testenv.Must(t, err)
	defer list.Shutdown()
	to, err := net.Dial("udp", list.LocalNode().Address())
	testenv.Must(t, err)
	defer to.Close()
	b := make([]byte, 1000)
	_, _ = rand.Read(b)
	b[0] = 1
	b = gt.Labelled("test", b)
	before := used(t)
	for sent := int64(0); sent < packets; {
		for range 50 { // as many as surely fit into the socket's buffer
			_, _ = to.Write(b)
			sent++
		}
		testenv.Eventually(t, "all are counted", func() bool { return g.garbage.Load() == sent })
	}
	each := (used(t) - before) / packets
	t.Logf("%v of CPU for each of %d datagrams of %d bytes, with %d keys, the sending included", each, packets, len(b), keys)
	if each > time.Millisecond { // ten times what it takes
		t.Errorf("%v of CPU for each datagram", each)
	}
	if written > 1 { // that others have another key is said once
		t.Errorf("%d lines were written", written)
	}
}

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) { w(b); return len(b), nil }

var _ io.Writer = writer(nil)

// used returns the CPU time of this process so far.
func used(t *testing.T) time.Duration {
	var u syscall.Rusage
	testenv.Must(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
