package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	gt "github.com/cachesidecar/cachesidecar/internal/testing/gossiptest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// gossipStranger is a stranger at a sidecar's gossip port.
type gossipStranger struct {
	t    *testing.T
	at   string
	udp  net.Conn
	seed *rand.Rand
}

func newStranger(t *testing.T, at string) *gossipStranger {
	udp, err := net.Dial("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = udp.Close() })
	seed := uint64(testenv.Date().UnixNano())
	t.Logf("seed %d", seed)
	return &gossipStranger{t, at, udp, rand.New(rand.NewPCG(seed, 1))}
}

// tell sends a packet. If no process has the port, the next send returns the error.
func (s *gossipStranger) tell(b []byte) { _, _ = s.udp.Write(b) }

func labelled(b []byte) []byte { return gt.Labelled(cluster.DefaultCluster, b) }

// streams sends the same bytes on n connections at once, and waits until they end.
func (s *gossipStranger) streams(n int, b []byte) {
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			nc, err := net.Dial("tcp", s.at)
			if err != nil {
				return
			}
			defer nc.Close()
			_ = nc.SetDeadline(testenv.Deadline())
			_, _ = nc.Write(b)
			_, _ = io.Copy(io.Discard, nc)
		})
	}
	wg.Wait()
}

var loopbackIP = net.IPv4(127, 0, 0, 1).To4()

// invented encodes an alive message of a process that does not exist.
func invented(name, peer string, incarnation uint32) []byte {
	return labelled(gt.Alive(name, loopbackIP, 21998, incarnation, gt.Meta(peer, 1<<60, 1<<32-1, true, 1)))
}

// fuzz sends random bytes, or messages with some bytes changed.
func (s *gossipStranger) fuzz(d time.Duration) (packets int) {
	r := s.seed
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	for end := time.Now().Add(d); time.Now().Before(end); packets++ {
		meta := gt.Meta("127.0.0.1:1", r.Uint64(), r.Uint32(), true, r.Uint64())
		alive := gt.Alive(fmt.Sprint("f", r.IntN(50)), loopbackIP, r.IntN(1<<16), r.Uint32(), meta)
		var b []byte
		switch r.IntN(7) {
		case 0:
			b = labelled(random(r.IntN(1400)))
		case 1:
			b = random(r.IntN(200))
		case 2:
			b = labelled(gt.Compound(alive, gt.Gone(gt.DeadType, "a", "x", r.Uint32())))
		case 3:
			b = labelled(gt.Exchange(r.Uint32()>>r.IntN(32), gt.State("f", loopbackIP, 1, 1, nil)))
		default:
			alive[0] = byte(r.IntN(14))
			b = labelled(alive)
		}
		if r.IntN(2) == 0 && len(b) > 14 {
			for range r.IntN(6) {
				b[14+r.IntN(len(b)-14)] = byte(r.Uint32())
			}
		}
		s.tell(b)
		if packets%50 == 0 {
			time.Sleep(2 * time.Millisecond)
		}
		if packets%100 == 0 {
			if nc, err := net.Dial("tcp", s.at); err == nil {
				_, _ = nc.Write(b)
				_ = nc.Close()
			}
		}
	}
	return packets
}

// kilobytes reads a value of a process from /proc, in kB.
func (p *process) kilobytes(name string) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[0] == name+":" {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	p.t.Fatalf("no %s", name)
	return 0
}

// TestLengthyGossipStrangers checks that whatever a stranger sends to the gossip port of a
// sidecar, the two stay a cluster, and their goroutines and logs stay as they are. Without a key
// their memory is not bounded, so streams of a million nodes come only where there is one.
func TestLengthyGossipStrangers(t *testing.T) {
	testenv.Takes(t, 25*time.Second)
	a, b, gossip, page := runGossips(t)
	gossipAttacks(t, a, b, gossip, page, false)
	if metric(t, page, `cachesidecar_gossip_dropped_total{reason="compressed"}`) == 0 {
		t.Error("nothing compressed is counted")
	}
}

// TestLengthyGossipStrangersWithKey checks that with a cluster key none of those packets has an
// effect: only the two existing processes are remembered and greeted.
func TestLengthyGossipStrangersWithKey(t *testing.T) {
	testenv.Takes(t, 25*time.Second)
	path := filepath.Join(tempDir(t), "cluster.key")
	if o := command(t, "", "key", "generate", "--out", path); o.status != exitDone {
		t.Fatalf("%v", o)
	}
	a, b, gossip, page := runGossips(t, "--cluster-key-file", path)
	list, stood := fmt.Sprint(a.members()), pauses(a, b)
	const dropped = `cachesidecar_gossip_dropped_total{reason="garbage"}`
	counted := []string{
		`cachesidecar_gossip_greetings_total{result="greeted"}`, `cachesidecar_gossip_greetings_total{result="failed"}`,
		"cachesidecar_gossip_unknown", "cachesidecar_gossip_unknown_forgotten_total",
	}
	var before []float64
	for _, name := range counted {
		before = append(before, metric(t, page, name))
	}
	gossipAttacks(t, a, b, gossip, page, true)
	for i, name := range counted {
		if now := metric(t, page, name); now != before[i] {
			t.Errorf("%s: %v, before: %v", name, now, before[i])
		}
	}
	if now := fmt.Sprint(a.members()); now != list && pauses(a, b) == stood {
		t.Errorf("members: %s, before: %s", now, list)
	}
	if n := metric(t, page, dropped); n < 1000 {
		t.Errorf("%v packets are counted", n)
	}
}

// runGossips runs two sidecars, and returns the address of the first one's HTTP page too.
func runGossips(t *testing.T, flags ...string) (a, b *process, gossip, page string) {
	t.Helper()
	ports, err := freePorts(5)
	if err != nil {
		t.Fatal(err)
	}
	gossip, page = loopback(ports[0]), loopback(ports[4])
	t.Setenv("GOGC", "50") // the peak is to tell what lives: garbage is three times that with 200, and more where others want the processors
	join := gossip + "," + loopback(ports[2])
	run := func(node string, more ...string) *process {
		return runSidecar(t, append(append(more, "--node", node, "--l2-size", "16MiB", "--join", join), flags...)...)
	}
	a = run("a", "--bind", gossip, "--peer-bind", loopback(ports[1]), "--http", page)
	b = run("b", "--bind", loopback(ports[2]), "--peer-bind", loopback(ports[3]))
	whole(t, a, b)
	return a, b, gossip, page
}

// gossipAttacks sends all known kinds of hostile packets. With a key memory stays as it is.
func gossipAttacks(t *testing.T, a, b *process, gossip, page string, keyed bool) {
	t.Helper()
	testenv.ReadsClock(t, 3*time.Second, "packets come for so long, at a rate at which they are read")
	s := newStranger(t, gossip)
	before, goroutines := a.kilobytes("VmHWM"), metric(t, page, "go_goroutines")
	bomb := labelled(gt.Compressed(append([]byte{gt.User}, make([]byte, 40<<20)...)))
	for _, tc := range []struct {
		name string
		do   func()
	}{
		{"compressed streams", func() { s.streams(16, bomb) }},
		{"compressed packets", func() {
			for range 16 {
				s.tell(bomb)
				time.Sleep(10 * time.Millisecond)
			}
		}},
		{"a million nodes", func() {
			if keyed {
				s.streams(16, labelled(gt.Exchange(1<<20)))
			}
		}},
		{"nested", func() {
			s.streams(4, labelled(append([]byte{gt.PushPull, 0x81, 0xa1, 'x'}, []byte(strings.Repeat("\x91", 1<<20))...)))
		}},
		{"a long string", func() { s.streams(16, labelled([]byte{gt.PushPull, 0x81, 0xa1, 'x', 0xdb, 0xff, 0xff, 0xff, 0xff})) }},
		{"idle streams", func() { s.streams(300, nil) }},
		{"escapes", func() {
			s.tell(invented("evil\x1b]0;pwned\x07\nline", "127.0.0.1:1", 1))
			s.tell(invented("evil", "127.0.0.1:1\x1b[2J", 1))
			if out := a.must("members"); strings.Contains(out, "evil") {
				t.Errorf("members writes %q", out)
			}
		}},
		{"500 invented members", func() {
			for i := range uint32(8) {
				for k := range 500 {
					s.tell(invented(fmt.Sprint("fake", k), s.at, i+1))
					if k%20 == 19 {
						time.Sleep(time.Millisecond)
					}
				}
				time.Sleep(400 * time.Millisecond)
			}
		}},
		{"death", func() {
			for i := range uint32(20) {
				s.tell(labelled(gt.Gone(gt.DeadType, "b", "x", i)))
				s.tell(labelled(gt.Gone(gt.DeadType, "b", "x", 1<<32-1)))
				time.Sleep(100 * time.Millisecond)
			}
		}},
		{"anything", func() { t.Logf("%d packets", s.fuzz(3*time.Second)) }},
	} {
		stood := pauses(a, b)
		tc.do()
		if peak := a.kilobytes("VmHWM"); keyed && peak > before+64<<10 {
			t.Errorf("%s: %d MiB at the most, before: %d", tc.name, peak>>10, before>>10)
		}
		for _, p := range []*process{a, b} {
			in := 0
			for _, m := range p.members() {
				if m.Partitions > 0 {
					in++
				}
			}
			if in != 2 && pauses(a, b) == stood {
				t.Errorf("%s: %d have partitions: %v", tc.name, in, p.members()[:min(4, len(p.members()))])
			}
		}
		a.must("set", "key-"+strings.ReplaceAll(tc.name, " ", "-"), "v")
	}
	testenv.Succeeds(t, "goroutines as before", func() error {
		if now := metric(t, page, "go_goroutines"); now > goroutines+20 {
			return fmt.Errorf("%.0f, before: %.0f", now, goroutines)
		}
		return nil
	})
	if n := len(a.log.String()); n > 64<<10 {
		t.Errorf("%d bytes of log:\n%s", n, tail(a.log.String(), 1000))
	}
}
