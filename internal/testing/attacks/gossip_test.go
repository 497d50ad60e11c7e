package attacks

import (
	"bytes"
	"compress/lzw"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
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
		bound: ofFilter,
		run:   packets(200, func(int) []byte { return bomb() }),
	},
	{
		name: "gossip: compressed over TCP", hosts: 2,
		tries: "100 connections with 31 KB that inflate to 40 MiB",
		bound: ofFilter,
		run:   streams(100, func(int) []byte { return bomb() }),
	},
	{
		name: "gossip: nesting", hosts: 2,
		tries: "a header of a push/pull nested a million deep",
		bound: ofDecoder,
		run: streams(4, func(int) []byte {
			return labelled([]byte{6, 0x81}, text("x"), bytes.Repeat([]byte{0x91}, 1_000_000), []byte{0xc0})
		}),
	},
	{
		name: "gossip: a long text", hosts: 2,
		tries: "a push/pull that announces a text of 4 GiB",
		bound: ofDecoder,
		run: streams(16, func(int) []byte {
			return labelled([]byte{6, 0x81}, text("x"), []byte{0xdb, 0xff, 0xff, 0xff, 0xff})
		}),
	},
	{
		name: "gossip: many nodes", hosts: 2,
		tries: "a push/pull that announces 4,294,967,295 nodes",
		bound: ofDecoder,
		run:   streams(16, func(int) []byte { return pushPull(1<<32 - 1) }),
	},
	{
		name: "gossip: broken packets", hosts: 2,
		tries: "random and changed packets, over UDP and TCP",
		bound: "one packet's trouble ends that packet",
		run:   brokenPackets,
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
		bound: "the host refutes; it is polled over the peer port",
		run:   tellDead,
	},
	{
		name: "gossip: invented members", hosts: 2,
		tries: "500 invented members, told again each half second",
		bound: ofMembers, shown: fewMembers,
		run: inventMembers},
}

// labelled returns a gossip packet with the cluster's label.
func labelled(parts ...[]byte) []byte {
	const label = "cachesidecar"
	return slices.Concat(append([][]byte{{244, byte(len(label))}, []byte(label)}, parts...)...)
}

// Encodings of memberlist's messages: msgpack before it had the type bin.
func text(s string) []byte {
	if len(s) < 32 {
		return append([]byte{0xa0 | byte(len(s))}, s...)
	}
	return append([]byte{0xda, byte(len(s) >> 8), byte(len(s))}, s...)
}
func raw(b []byte) []byte     { return append([]byte{0xda, byte(len(b) >> 8), byte(len(b))}, b...) }
func uint32s(v uint32) []byte { return binary.BigEndian.AppendUint32([]byte{0xce}, v) }

// alive encodes a member that claims to serve peers at an address.
func alive(node string, incarnation uint32, address string) []byte {
	epoch := binary.BigEndian.AppendUint64([]byte{0xcf}, uint64(time.Now().UnixNano()))
	meta := slices.Concat([]byte{0x97}, text(address), epoch, uint32s(1<<32-1), []byte{1, 1, 0xc3, 1})
	return labelled([]byte{4, 0x86}, text("Incarnation"), uint32s(incarnation), text("Node"), text(node),
		text("Addr"), raw([]byte{127, 0, 0, 1}), text("Port"), uint32s(9), text("Meta"), raw(meta),
		text("Vsn"), raw([]byte{1, 5, 2, 0, 0, 0}))
}

// pushPull announces nodes that do not follow.
func pushPull(nodes uint32) []byte {
	return labelled([]byte{6, 0x83}, text("Nodes"), uint32s(nodes), text("UserStateLen"), []byte{0}, text("Join"), []byte{0xc2})
}

// bomb inflates to 40 MiB.
var bomb = sync.OnceValue(func() []byte {
	var z bytes.Buffer
	w := lzw.NewWriter(&z, lzw.LSB, 8)
	_, _ = w.Write(append([]byte{8}, make([]byte, 40<<20-10)...))
	_ = w.Close()
	length := binary.BigEndian.AppendUint32([]byte{0xdb}, uint32(z.Len()))
	return labelled([]byte{9, 0x82}, text("Algo"), []byte{0}, text("Buf"), length, z.Bytes())
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
		switch r.IntN(4) {
		case 0:
			b = labelled(noise(r, r.IntN(1400)))
		case 1:
			b = noise(r, r.IntN(200))
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
	other := j.Target.Hosts[1].Node
	return packets(10, func(i int) []byte {
		return labelled([]byte{5, 0x83}, text("Incarnation"), uint32s(uint32(i)), text("Node"), text(other), text("From"), text("x"))
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

// members returns the command's output about a host's members.
func members(h *house) (string, error) {
	path, err := built()
	if err != nil {
		return "", err
	}
	out, err := exec.Command(path, "members", "--socket", h.hosts[0].Socket).CombinedOutput()
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
