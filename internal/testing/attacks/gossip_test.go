package attacks

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	gt "github.com/cachesidecar/cachesidecar/internal/testing/gossiptest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

const (
	ofDecoder = "memberlist's decoder: at most 1,024 deep and 1,048,576 nodes"
	ofFilter  = "what is compressed is dropped before it is inflated"
	ofMembers = "members count once they have greeted over the peer port"
	nobody    = "127.0.0.1:9" // an address of invented members, where no process listens
)

var gossipAttacks = []attack{
	{
		name: "gossip: compressed over UDP", hosts: 2,
		tries: "200 packets a second of 31 KB that inflate to 40 MiB",
		bound: ofFilter, shown: twoOwners,
		run: packets(200, func(int) []byte { return bomb() }),
	},
	{
		name: "gossip: compressed over TCP", hosts: 2,
		tries: "100 connections with 31 KB that inflate to 40 MiB",
		bound: ofFilter, shown: twoOwners,
		run: streams(100, func(int) []byte { return bomb() }),
	},
	{
		name: "gossip: nesting", hosts: 2,
		tries: "a header of a push/pull nested a million deep",
		bound: ofDecoder, shown: twoOwners,
		run: streams(4, func(int) []byte {
			return labelled([]byte{gt.PushPull, 0x81}, gt.Raw("x"), bytes.Repeat([]byte{0x91}, 1_000_000), []byte{0xc0})
		}),
	},
	{
		name: "gossip: a long text", hosts: 2,
		tries: "a push/pull that announces a text of 4 GiB",
		bound: ofDecoder, shown: twoOwners,
		run: streams(16, func(int) []byte {
			return labelled([]byte{gt.PushPull, 0x81}, gt.Raw("x"), []byte{0xdb, 0xff, 0xff, 0xff, 0xff})
		}),
	},
	{
		name: "gossip: many nodes", hosts: 2,
		tries: "a push/pull that announces 4,294,967,295 nodes",
		bound: ofDecoder, shown: twoOwners,
		run: streams(16, func(int) []byte { return labelled(gt.Exchange(1<<32 - 1)) }),
	},
	{
		name: "gossip: idle streams", hosts: 2,
		tries: "300 connections that say nothing",
		bound: "streams are bounded in number and time", shown: twoOwners,
		run: streams(300, func(int) []byte { return nil }),
	},
	{
		name: "gossip: broken packets", hosts: 2,
		tries: "random and changed packets, over UDP and TCP",
		bound: "one packet's trouble ends that packet", shown: twoOwners,
		run: brokenPackets,
	},
	{
		name: "gossip: terminal escapes", hosts: 2,
		tries: "a member whose name and address steer a terminal",
		bound: "control characters are escaped in logs and output", shown: noEscapes,
		run: packets(20, func(int) []byte {
			return alive("evil\x1b]0;pwned\x07\n\x1b[31mfake line", 1, "127.0.0.1:9\x1b[2J")
		}),
	},
	{
		name: "gossip: the dead", hosts: 2,
		tries: "the claim, 10 times a second, that the other host is dead",
		bound: "the host refutes; it is polled over the peer port", shown: twoOwners,
		run: tellDead,
	},
	{
		name: "gossip: invented members", hosts: 2,
		tries: "500 invented members, told again each half second",
		bound: ofMembers, shown: fewMembers,
		run: inventMembers},
}

func labelled(message ...[]byte) []byte {
	return gt.Labelled(cluster.DefaultCluster, slices.Concat(message...))
}

// alive encodes a member that claims to serve peers at an address.
func alive(node string, incarnation uint32, address string) []byte {
	meta := gt.Meta(address, uint64(time.Now().UnixNano()), 1<<32-1, true, 1)
	return labelled(gt.Alive(node, net.IPv4(127, 0, 0, 1).To4(), 9, incarnation, meta))
}

// dead encodes the claim that a member is dead.
func dead(node string, incarnation uint32) []byte {
	return labelled(gt.Gone(gt.DeadType, node, "x", incarnation))
}

// bomb inflates to 40 MiB.
var bomb = sync.OnceValue(func() []byte {
	return labelled(gt.Compressed(append([]byte{gt.User}, make([]byte, 40<<20-10)...)))
})

// packets sends packets at the given rate.
func packets(perSecond int, packet func(i int) []byte) func(context.Context, *job) error {
	return func(ctx context.Context, j *job) error {
		c, err := net.Dial("udp", j.victim().Gossip)
		if err != nil {
			return err
		}
		defer c.Close()
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			if _, err := c.Write(packet(i)); err == nil {
				j.count.Add(1)
			}
		}
	}
}

// streams sends the same bytes on n connections at once, stalls for a second, and starts
// again.
func streams(n int, what func(i int) []byte) func(context.Context, *job) error {
	return func(ctx context.Context, j *job) error {
		b := what(0)
		j.crowd(ctx, n, func(int) error {
			c, err := dial(ctx, "tcp", j.victim().Gossip, 2*time.Second)
			if err != nil {
				return err
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(time.Second))
			if _, err := c.Write(b); err != nil {
				return err
			}
			j.count.Add(1)
			discard(c)
			return nil
		})
		return nil
	}
}

func brokenPackets(ctx context.Context, j *job) error {
	u, err := net.Dial("udp", j.victim().Gossip)
	if err != nil {
		return err
	}
	defer u.Close()
	r := rand.New(rand.NewPCG(uint64(j.Round), 1))
	for ctx.Err() == nil {
		var b []byte
		switch r.IntN(5) {
		case 0:
			b = labelled(noise(r, r.IntN(1400)))
		case 1:
			b = noise(r, r.IntN(200))
		case 2:
			b = labelled(gt.Compound(alive("a", 1, nobody)[14:], dead("a", r.Uint32())[14:]))
		default:
			b = alive(fmt.Sprint("f", r.IntN(50)), r.Uint32(), nobody)
			b = slices.Concat(b[:14], []byte{byte(r.IntN(14))}, b[14+r.IntN(2):])
			for range r.IntN(6) {
				b[14+r.IntN(len(b)-14)] = byte(r.Uint32())
			}
		}
		_, _ = u.Write(b)
		if j.count.Add(1)%50 == 0 {
			rest(ctx, 2*time.Millisecond)
		}
		if j.count.Load()%200 == 0 {
			if c, err := dial(ctx, "tcp", j.victim().Gossip, time.Second); err == nil {
				_, _ = c.Write(b)
				_ = c.Close()
			}
		}
	}
	return nil
}

func tellDead(ctx context.Context, j *job) error {
	return packets(10, func(i int) []byte {
		incarnation := uint32(i)
		if i%2 == 1 {
			incarnation = 1<<32 - 1
		}
		return dead(j.Target.Hosts[1].Node, incarnation)
	})(ctx, j)
}

// inventMembers announces 500 members whose peer port is the attacker's own, and counts
// the dials to it.
func inventMembers(ctx context.Context, j *job) error {
	sink, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { // ends with the process
		for {
			c, err := sink.Accept()
			if err != nil {
				return
			}
			if j.count.Add(1) == int64(20*j.Run.Seconds())+200 {
				j.learn("more than %d dials to an address of the attacker's", j.count.Load())
			}
			_ = c.Close()
		}
	}()
	c, err := net.Dial("udp", j.victim().Gossip)
	if err != nil {
		return err
	}
	defer c.Close()
	for round := uint32(j.Round)*1000 + 1; ctx.Err() == nil; round++ {
		for i := range 500 {
			_, _ = c.Write(alive(fmt.Sprintf("fake%d", i), round, sink.Addr().String()))
			if i%20 == 19 {
				rest(ctx, time.Millisecond)
			}
		}
		rest(ctx, 500*time.Millisecond)
	}
	return nil
}

// twoOwners checks that the two hosts own all partitions. A host that stood still may need a moment.
func twoOwners(h *house, _ report) (err error) {
	for end := time.Now().Add(testenv.Patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		var text string
		if text, err = members(h, "--json"); err != nil {
			return err
		}
		var list []cachesidecar.Member
		if err = json.Unmarshal([]byte(text), &list); err != nil {
			return err
		}
		owned, owners := 0, 0
		for _, m := range list {
			if owned += m.Partitions; m.Partitions > 0 {
				owners++
			}
		}
		if owned == kv.Partitions && owners == 2 {
			return nil
		}
		err = fmt.Errorf("%d own partitions: %s", owners, text)
	}
	return err
}

// members returns the command's output about a host's members.
func members(h *house, flags ...string) (string, error) {
	path, err := built()
	if err != nil {
		return "", err
	}
	out, err := exec.Command(path, append([]string{"members", "--socket", h.hosts[0].Socket}, flags...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("members: %w\n%s", err, out)
	}
	return string(out), nil
}

// noEscapes looks for control characters in the log and in the command's output.
func noEscapes(h *house, _ report) error {
	out, err := members(h)
	if err != nil {
		return err
	}
	log, err := os.ReadFile(h.hosts[0].log)
	if err != nil {
		return err
	}
	for _, text := range []string{out, string(log)} {
		if at := strings.IndexFunc(text, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f }); at >= 0 {
			return fmt.Errorf("a control character: %q", text[max(0, at-40):min(len(text), at+40)])
		}
	}
	return nil
}

// fewMembers bounds how many invented members a host remembers.
func fewMembers(h *house, _ report) error {
	const most = 256
	out, err := members(h)
	if err != nil {
		return err
	}
	listed := 0
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "fake") {
			listed++
		}
	}
	if listed == 0 || listed > most {
		return fmt.Errorf("%d invented members are listed, want 1 to %d", listed, most)
	}
	return nil
}
