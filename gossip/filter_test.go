package gossip

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	gt "github.com/cachesidecar/cachesidecar/internal/testing/gossiptest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// user returns a datagram that makes no more hops.
func user(s string) []byte { return append([]byte{gt.User, 0}, s...) }

// TestPackets: packets that are compressed, too long, or of another cluster are dropped, and
// counted. What members send is not dropped.
func TestPackets(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		c.startAll(2)
		n, tr := c.nodes[0], c.Host(ipOf(9)).Transport(port)
		before := n.Stats()
		for _, b := range [][]byte{
			gt.Labelled("test", user("plain")), gt.Labelled("test", gt.Summed(user("summed"))),
			gt.Labelled("test", gt.Compound(user("one"), user("two"))),
			gt.Labelled("test", gt.Compressed(user("packed"))), gt.Labelled("prod", user("foreign")), user("bare"),
			gt.Labelled("test", gt.Compound(user("long"), make([]byte, maxPacket))), gt.Labelled("test", nil), {244},
		} {
			if _, err := tr.WriteTo(b, addressOf(0)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		got := n.got()
		for _, name := range []string{"plain", "summed", "one", "two"} {
			if got[name] != 1 {
				t.Errorf("%s was taken %d times", name, got[name])
			}
		}
		for _, name := range []string{"packed", "foreign", "bare", "long"} {
			if got[name] != 0 {
				t.Errorf("%s was taken", name)
			}
		}
		s := n.Stats()
		if s.Compressed-before.Compressed != 1 || s.Foreign-before.Foreign != 2 || s.Garbage-before.Garbage != 3 {
			t.Errorf("counted: %+v, before: %+v", s, before)
		}
	})
}

// TestStreams: a stream of another cluster, or a compressed one, ends at once. One that is
// longer than an exchange of members ends after maxStream.
func TestStreams(t *testing.T) {
	state := gt.State("x", net.IPv4(10, 0, 0, 9).To4(), port, 1, nil)
	for name, stream := range map[string][]byte{
		"compressed":    gt.Labelled("test", gt.Compressed(make([]byte, 1<<20))),
		"another label": gt.Labelled("prod", gt.Exchange(1, state)),
		"too long":      gt.Labelled("test", gt.Exchange(1<<20, bytes.Repeat(state, 2*maxStream/len(state)))),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *cluster) {
				c.startAll(2)
				before := c.nodes[0].garbage.Load()
				nc, err := c.Host(ipOf(9)).Dial(t.Context(), addressOf(0))
				testenv.Must(t, err)
				defer nc.Close()
				_, _ = nc.Write(stream)
				_ = nc.SetReadDeadline(time.Now().Add(streamTimeout / 4))
				if _, err := io.ReadAll(nc); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("it is open still")
				}
				if got, open := c.nodes[0].garbage.Load(), c.nodes[0].filter.streams(); got != before+1 || open != 0 {
					t.Errorf("counted: %d, before: %d; %d are open", got, before, open)
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
			testenv.Must(t, err)
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

// TestAnswersAreBounded: the answer to a join may come from a stranger, too.
func TestAnswersAreBounded(t *testing.T) {
	state := gt.State("x", net.IPv4(10, 0, 0, 10).To4(), port, 1, gt.Meta("10.0.0.10:7947", 7, 1, false, 1))
	for _, tc := range []struct {
		name   string
		answer []byte
		taken  bool
	}{
		{"well", gt.Exchange(1, state), true},
		{"compressed", gt.Compressed(gt.Exchange(1, state)), false},
		{"too long", gt.Exchange(20000, bytes.Repeat(state, 20000)), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *cluster) {
				ln, err := c.Host(ipOf(9)).Listen(port)
				testenv.Must(t, err)
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

// TestStreamsAreBounded: streams are bounded, of one address and in all. Of too many, those
// of the addresses with most end first. Streams that end make room.
func TestStreamsAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		c.startAll(2)
		n := c.nodes[0]
		alone, err := c.Host(ipOf(9)).Dial(t.Context(), addressOf(0))
		testenv.Must(t, err)
		conns := []net.Conn{alone}
		for i := range 10 {
			for range 2 * maxStreamsPerIP {
				nc, err := c.Host(ipOf(20+i)).Dial(t.Context(), addressOf(0))
				testenv.Must(t, err)
				conns = append(conns, nc)
			}
			time.Sleep(time.Millisecond)
			if got, want := n.filter.streams(), min(1+(i+1)*maxStreamsPerIP, maxStreams); got != want {
				t.Errorf("from %d addresses %d are open, want %d", i+1, got, want)
			}
		}
		if got := n.Stats().Refused; got != int64(len(conns)-maxStreams) {
			t.Errorf("%d of %d were refused", got, len(conns))
		}
		_ = alone.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := alone.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the only one of its address: %v", err)
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

// TestWords: names and addresses appear in lists and logs.
func TestWords(t *testing.T) {
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
		{"a", "two words:7947", false},
	} {
		n, m := memberlist.Node{Name: tc.name, Addr: net.IPv4(10, 0, 0, 1).To4()}, Meta{Address: tc.address}
		if err := checkNode(&n, &m); (err == nil) != tc.want {
			t.Errorf("%q at %q: %v", tc.name, tc.address, err)
		}
	}
}

// TestSealed: with a key, a message is taken if it is encrypted in the one version that
// members use. A recorded message in which a stranger has changed the version to 0 makes
// memberlist panic. The same holds for answers to this node's streams.
func TestSealed(t *testing.T) {
	state := gt.State("x", net.IPv4(10, 0, 0, 10).To4(), port, 1, gt.Meta("10.0.0.10:7947", 7, 1, false, 0xff))
	head := len(gt.Labelled("test", nil))
	version := func(b []byte, at int, v byte) []byte {
		b = slices.Clone(b)
		b[head+at] = v
		return b
	}
	word := strings.Repeat("x", 20) + "\xff"
	packet := gt.Sealed(key(1), "test", user(word))
	stream := gt.SealedStream(key(1), "test", gt.Exchange(1, append(state, 0xff)))
	inBubble(t, func(t *testing.T, c *cluster) {
		n, tr := c.start(0, keyed(1), join(addressOf(9))), c.Host(ipOf(8)).Transport(port)
		ln, err := c.Host(ipOf(9)).Listen(port)
		testenv.Must(t, err)
		var answer atomic.Pointer[[]byte]
		go func() { // ends with the listener
			for {
				nc, err := ln.Accept()
				if err != nil {
					return
				}
				_, _ = nc.Write(*answer.Load())
				_, _ = io.Copy(io.Discard, nc)
				_ = nc.Close()
			}
		}()
		for v := byte(0); v <= 2; v++ {
			b := version(stream, 5, v)[head:]
			answer.Store(&b)
			_, _ = tr.WriteTo(version(packet, 0, v), addressOf(0))
			nc, err := c.Host(ipOf(9)).Dial(t.Context(), addressOf(0))
			testenv.Must(t, err)
			_, _ = nc.Write(version(stream, 5, v))
			time.Sleep(rejoinEvery * 2)
			_ = nc.Close()
		}
		long, err := c.Host(ipOf(9)).Dial(t.Context(), addressOf(0))
		testenv.Must(t, err)
		_, _ = long.Write(gt.Labelled("test", []byte{gt.EncryptType, 0, 0x20, 0, 0, 1}))
		_ = long.SetReadDeadline(time.Now().Add(streamTimeout / 4))
		if _, err := io.ReadAll(long); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("a stream that announces too much is open still")
		}
		if n.got()[word] != 1 || n.member("x") == nil {
			t.Errorf("of version 1: %v, %v", n.got(), n.Members())
		}
		before := n.Stats().Garbage
		for cut := head + 1; cut < len(packet); cut++ {
			_, _ = tr.WriteTo(packet[:cut], addressOf(0))
			time.Sleep(20 * time.Millisecond)
		}
		if cuts := n.Stats().Garbage - before; cuts != int64(len(packet)-head-1) || n.got()[word] != 1 {
			t.Errorf("cut short: %d are counted, %v", cuts, n.got())
		}
		_ = ln.Close()
	})
}
