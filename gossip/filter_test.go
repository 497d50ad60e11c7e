package gossip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	gt "github.com/cachesidecar/cachesidecar/internal/testing/gossiptest"
)

// user returns a datagram that makes no more hops.
func user(s string) []byte { return append([]byte{gt.User, 0}, s...) }

// TestCompressedPackets: a compressed message is dropped, however it is wrapped. What
// members send is not dropped.
func TestCompressedPackets(t *testing.T) {
	plain, packed := user("plain"), gt.Compressed(user("packed"))
	inBubble(t, func(t *testing.T, c *cluster) {
		c.startAll(2)
		n, tr := c.nodes[0], c.Host(ipOf(9)).Transport(port)
		send := func(b []byte) {
			if _, err := tr.WriteTo(gt.Labelled("test", b), addressOf(0)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		send(plain)
		send(gt.Summed(user("summed")))
		send(gt.Compound(user("one"), user("two")))
		before := n.Stats()
		list := [][]byte{
			packed, gt.Summed(packed), gt.Compound(user("beside"), packed), gt.Summed(gt.Compound(packed)),
			gt.Compressed(gt.Compound(user("packed"))),
		}
		for _, b := range list {
			send(b)
		}
		send(gt.Compound(gt.Compound(user("nested"))))
		got := n.got()
		for _, want := range []string{"plain", "summed", "one", "two"} {
			if got[want] != 1 {
				t.Errorf("%s was taken %d times", want, got[want])
			}
		}
		for _, not := range []string{"packed", "beside", "nested"} {
			if got[not] != 0 {
				t.Errorf("%s was taken", not)
			}
		}
		s := n.Stats()
		if s.Compressed-before.Compressed != int64(len(list)) || s.Garbage-before.Garbage != int64(len(list))+1 {
			t.Errorf("counted: %+v, before: %+v", s, before)
		}
	})
}

// TestStreamBombs: a stream that announces what no member sends ends before any of it
// is read or allocated. It ends at once, and not when its time is over.
func TestStreamBombs(t *testing.T) {
	state := gt.State("x", net.IPv4(10, 0, 0, 9).To4(), port, 1, nil)
	for _, tc := range []struct {
		name   string
		stream []byte
	}{
		{"compressed", gt.Compressed(append([]byte{gt.User}, make([]byte, 1<<20)...))},
		{"a compressed exchange, cut short", gt.Compressed(gt.Exchange(1, state))[:30]},
		{"a million nodes", gt.Exchange(1 << 20)},
		{"nodes one too many", gt.Exchange(maxNodes + 1)},
		{"a long string", append([]byte{gt.PushPull, 0x81}, append(gt.Raw("x"), 0xdb, 0xff, 0xff, 0xff, 0xff)...)},
		{"a long key", append([]byte{gt.PushPull, 0x81}, 0xdb, 0xff, 0xff, 0xff, 0xff)},
		{"nested", append([]byte{gt.PushPull, 0x81}, append(gt.Raw("x"), bytes.Repeat([]byte{0x91}, 1<<16)...)...)},
		{"a large map", append([]byte{gt.PushPull}, 0xde, 0xff, 0xff)},
		{"user state", append([]byte{gt.PushPull}, gt.Map(gt.Raw("Nodes"), []byte{0}, gt.Raw("UserStateLen"), gt.U32(20<<20))...)},
		{"a user message", append([]byte{gt.User}, gt.Map(gt.Raw("UserMsgLen"), gt.U32(20<<20))...)},
		{"less than no nodes", append([]byte{gt.PushPull}, gt.Map(gt.Raw("Nodes"), []byte{0xff})...)},
		{"another label", gt.Labelled("prod", nil)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *cluster) {
				c.startAll(2)
				before := c.nodes[0].Stats().Garbage
				nc, err := c.Host(ipOf(9)).Dial(t.Context(), addressOf(0))
				if err != nil {
					t.Fatal(err)
				}
				defer nc.Close()
				stream := tc.stream
				if tc.name != "another label" {
					stream = gt.Labelled("test", stream)
				}
				_, _ = nc.Write(stream)
				_ = nc.SetReadDeadline(time.Now().Add(streamTimeout / 4))
				b, err := io.ReadAll(nc)
				if errors.Is(err, os.ErrDeadlineExceeded) || len(b) > 0 {
					t.Errorf("it is open still, or answered: %q, %v", b, err)
				}
				if got := c.nodes[0].Stats(); got.Garbage != before+1 || got.Streams != 0 {
					t.Errorf("counted: %+v, garbage before: %d", got, before)
				}
			})
		})
	}
}

// TestStreamInPieces: an exchange is taken in pieces, one byte at a time, and a ping
// is answered.
func TestStreamInPieces(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		c.startAll(2)
		meta := gt.Meta("10.0.0.10:7947", 7, 1, false, 1)
		for _, stream := range [][]byte{
			gt.Exchange(1, gt.State("n9", net.IPv4(10, 0, 0, 10).To4(), port, 1, meta)),
			append([]byte{gt.Ping}, gt.Map(gt.Raw("SeqNo"), gt.U32(5), gt.Raw("Node"), gt.Raw("n0"))...),
		} {
			nc, err := c.Host(ipOf(9)).Dial(t.Context(), addressOf(0))
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range gt.Labelled("test", stream) {
				_, _ = nc.Write([]byte{b})
				time.Sleep(time.Millisecond)
			}
			_ = nc.SetReadDeadline(time.Now().Add(streamTimeout))
			if b, err := io.ReadAll(nc); err != nil || len(b) < 10 {
				t.Errorf("the answer: %q, %v", b, err)
			}
			_ = nc.Close()
		}
		if c.nodes[0].member("n9") == nil {
			t.Error("the exchange was not taken")
		}
	})
}

// TestAnswersAreFiltered: the answer to a join may come from a stranger, too.
func TestAnswersAreFiltered(t *testing.T) {
	state := gt.State("x", net.IPv4(10, 0, 0, 10).To4(), port, 1, gt.Meta("10.0.0.10:7947", 7, 1, false, 1))
	for _, tc := range []struct {
		name   string
		answer []byte
		taken  bool
	}{
		{"well", gt.Exchange(1, state), true},
		{"compressed", gt.Compressed(gt.Exchange(1, state)), false},
		{"a million nodes", gt.Exchange(1<<20, state), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *cluster) {
				ln, err := c.Host(ipOf(9)).Listen(port)
				if err != nil {
					t.Fatal(err)
				}
				go func() { // ends with the listener
					for {
						nc, err := ln.Accept()
						if err != nil {
							return
						}
						_, _ = nc.Write(tc.answer)
						_, _ = io.Copy(io.Discard, nc)
						_ = nc.Close()
					}
				}()
				n := c.start(0, join(addressOf(9)))
				time.Sleep(time.Second)
				if taken := n.member("x") != nil; taken != tc.taken {
					t.Errorf("taken: %v, want %v", taken, tc.taken)
				}
				_ = ln.Close()
			})
		})
	}
}

// TestStreamsAreBounded: streams are bounded, of one address and in all. Streams that
// end make room.
func TestStreamsAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		c.startAll(2)
		n := c.nodes[0]
		var conns []net.Conn
		for i := range 10 {
			for range 2 * maxStreamsPerIP {
				nc, err := c.Host(ipOf(20+i)).Dial(t.Context(), addressOf(0))
				if err != nil {
					t.Fatal(err)
				}
				conns = append(conns, nc)
			}
			time.Sleep(time.Millisecond)
			if got, want := n.Stats().Streams, min((i+1)*maxStreamsPerIP, maxStreams); got != want {
				t.Errorf("from %d addresses %d are open, want %d", i+1, got, want)
			}
		}
		if got := n.Stats().Refused; got != int64(len(conns)-maxStreams) {
			t.Errorf("%d of %d were refused", got, len(conns))
		}
		time.Sleep(2 * streamTimeout)
		if got := n.Stats().Streams; got != 0 {
			t.Errorf("%d are open after their time", got)
		}
		for _, nc := range conns {
			_ = nc.Close()
		}
	})
}

// TestIndirectPings: a node pings others on a stranger's behalf at a bounded rate.
func TestIndirectPings(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		c.startAll(2)
		victim := c.Host(ipOf(30)).Transport(port)
		tr := c.Host(ipOf(9)).Transport(port)
		for range 20 * indirectRate {
			_, _ = tr.WriteTo(gt.Labelled("test", gt.Indirect("x", net.ParseIP(ipOf(30)), port)), addressOf(0))
			time.Sleep(time.Millisecond)
		}
		came := 0
		for len(victim.PacketCh()) > 0 {
			<-victim.PacketCh()
			came++
		}
		if came > 3*indirectRate || came == 0 {
			t.Errorf("%d came in 2 s", came)
		}
	})
}

// TestWords: names and addresses appear in lists and logs.
func TestWords(t *testing.T) {
	ok := memberlist.Node{Name: "host-1.example", Addr: net.IPv4(10, 0, 0, 1).To4(), PMin: 1, PMax: 5, PCur: 2}
	for _, tc := range []struct {
		name, address string
		want          bool
	}{
		{"host-1.example", "10.0.0.1:7947", true},
		{"häuschen", "[fe80::1]:7947", true},
		{"", "10.0.0.1:7947", false},
		{strings.Repeat("n", maxNode+1), "10.0.0.1:7947", false},
		{"two words", "10.0.0.1:7947", false},
		{"evil\x1b]0;pwned\x07", "10.0.0.1:7947", false},
		{"line\nline", "10.0.0.1:7947", false},
		{"\xff\xfe", "10.0.0.1:7947", false},
		{"right\u202eleft", "10.0.0.1:7947", false},
		{"a", "10.0.0.1:7947\x1b[2J", false},
		{"a", "10.0.0.1", false},
		{"a", "10.0.0.1:70000", false},
		{"a", "evil\x1b[2J:7947", false},
	} {
		n, m := ok, Meta{Address: tc.address}
		n.Name = tc.name
		if err := checkNode(&n, &m); (err == nil) != tc.want {
			t.Errorf("%q at %q: %v", tc.name, tc.address, err)
		}
	}
	// One node with another version makes every exchange fail that names it.
	for _, v := range []uint8{0, 1, 3, 255} {
		n := ok
		if n.PCur = v; checkNode(&n, &Meta{}) == nil {
			t.Errorf("version %d is taken", v)
		}
	}
}

// TestStrayDatagrams: with a key, a datagram that is too short or not encrypted is
// dropped before a key is tried. A stray datagram costs little.
func TestStrayDatagrams(t *testing.T) {
	var garbage atomic.Int64
	f := newFilter("test", func() bool { return true }, &garbage)
	sealed := append([]byte{1}, make([]byte, 100)...)
	for _, tc := range []struct {
		b    []byte
		want bool
	}{
		{gt.Labelled("test", sealed), true},
		{gt.Labelled("test", sealed[:minEncrypted-1]), false},
		{gt.Labelled("test", make([]byte, 100)), false}, // version 0
		{gt.Labelled("test", append([]byte{2}, sealed...)), false},
		{gt.Labelled("test", user(strings.Repeat("x", 100))), false},
		{gt.Labelled("prod", sealed), false},
		{gt.Labelled("test", make([]byte, maxPacket)), false},
	} {
		if got := f.packet(tc.b) == nil; got != tc.want {
			t.Errorf("%.20q…: passed %v, want %v", tc.b, got, tc.want)
		}
	}
}

// TestSealedStreams: with a key, a stream passes if it is encrypted, in the one
// version that members use, and no longer than members' streams. The same holds for
// answers to this host's own streams.
func TestSealedStreams(t *testing.T) {
	stream := gt.SealedStream(key(1), "test", gt.Exchange(0))
	head := len(gt.Labelled("test", nil))
	version := func(v byte) []byte {
		b := slices.Clone(stream)
		b[head+5] = v
		return b
	}
	length := func(n uint32) []byte {
		b := slices.Clone(stream)
		binary.BigEndian.PutUint32(b[head+1:], n)
		return b
	}
	for _, tc := range []struct {
		name string
		b    []byte
		want bool
	}{
		{"a member's", stream, true},
		{"of version 0", version(0), false},
		{"of version 2", version(2), false},
		{"of no length", length(0), false},
		{"shorter than any", length(minEncrypted - 1), false},
		{"longer than any", length(maxStream + maxEncryptionOverhead + 1), false},
		{"of 4 GiB", length(1<<32 - 1), false},
		{"cut before its version", stream[:head+5], false},
	} {
		for _, answer := range []bool{false, true} {
			var garbage atomic.Int64
			b := tc.b
			if answer {
				b = b[head:]
			}
			f := newFilter("test", func() bool { return true }, &garbage)
			w := &window{more: &dripping{b: b}}
			follow, err := f.stream(w, answer)
			if (err == nil) != tc.want || tc.want && follow != len(b)-w.at {
				t.Errorf("%s, an answer %v: %d bytes follow, %v", tc.name, answer, follow, err)
			}
		}
	}
}

// FuzzFilter: for any input, a packet passes only if another reader finds nothing
// compressed or nested in it. A stream in pieces is judged like the whole stream.
func FuzzFilter(f *testing.F) {
	meta := gt.Meta("10.0.0.1:7947", 1, 1, true, 1)
	alive := gt.Alive("n", net.IPv4(10, 0, 0, 1).To4(), port, 1, meta)
	for _, b := range [][]byte{
		alive, gt.Summed(alive), gt.Compound(alive, user("x")), gt.Compressed(alive), gt.Gone(gt.DeadType, "n", "m", 1),
		gt.Exchange(1, gt.State("n", net.IPv4(10, 0, 0, 1).To4(), port, 1, meta)), gt.Compound(gt.Compound(alive)),
	} {
		f.Add(b)
		f.Add(gt.Labelled("test", b))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var garbage atomic.Int64
		for _, cluster := range []string{"", "test"} {
			fl := newFilter(cluster, func() bool { return false }, &garbage)
			if fl.packet(b) == nil {
				if why := suspicious(b, cluster); why != "" {
					t.Errorf("a packet passes: %s", why)
				}
			}
			for _, answer := range []bool{false, true} {
				whole := &window{more: bytes.NewReader(b)}
				pieces := &window{more: &dripping{b: b}}
				_, err := fl.stream(whole, answer)
				_, err2 := fl.stream(pieces, answer)
				if (err == nil) != (err2 == nil) || err == nil && whole.at != pieces.at {
					t.Errorf("a stream as a whole: %v at %d, in pieces: %v at %d", err, whole.at, err2, pieces.at)
				}
				if len(whole.b) > maxStream+1024 {
					t.Errorf("%d bytes of a stream were read", len(whole.b))
				}
			}
		}
	})
}

// dripping gives one byte at a time, or a few.
type dripping struct{ b []byte }

func (d *dripping) Read(p []byte) (int, error) {
	if len(d.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 1+rand.IntN(3))], d.b)
	d.b = d.b[n:]
	return n, nil
}

// suspicious reads a packet as memberlist does.
func suspicious(b []byte, cluster string) string {
	b, label, err := memberlist.RemoveLabelHeaderFromPacket(b)
	if err != nil || label != cluster {
		return fmt.Sprint("its label: ", label, err)
	}
	if len(b) >= 5 && b[0] == gt.CRCType {
		b = b[5:]
	}
	parts := [][]byte{b}
	if len(b) > 1 && b[0] == gt.CompoundType {
		n := int(b[1])
		rest := b[2+2*n:]
		parts = nil
		for i := range n {
			k := int(b[2+2*i])<<8 | int(b[3+2*i])
			parts = append(parts, rest[:k])
			rest = rest[k:]
		}
	}
	for _, p := range parts {
		if len(p) == 0 || slices.Contains([]byte{gt.CompoundType, gt.CompressType, gt.PushPull, gt.CRCType}, p[0]) {
			return fmt.Sprintf("it has %.10q", p)
		}
	}
	return ""
}
