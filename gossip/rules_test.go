package gossip

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	gt "github.com/cachesidecar/cachesidecar/internal/testing/gossiptest"
)

// TestPacketRules: packets in the form of members' packets are dropped if they break
// one rule.
func TestPacketRules(t *testing.T) {
	ping := append([]byte{gt.Ping}, gt.Map(gt.Raw("SeqNo"), gt.U32(5))...)
	long := gt.Map(gt.Raw("Node"), gt.Raw(strings.Repeat("n", maxString+1)))
	cut := gt.Compound(user("one"), user("two"))
	for _, tc := range []struct {
		name, cluster string
		b             []byte
		want          error
	}{
		{"a ping", "test", gt.Labelled("test", ping), nil},
		{"a ping without a name", "", ping, nil},
		{"a label where there is none", "", gt.Labelled("test", ping), errForeign},
		{"a longer label that begins alike", "test", gt.Labelled("test\x08", append([]byte{0}, "x"...)), errForeign},
		{"another label as long", "test", gt.Labelled("prod", ping), errForeign},
		{"a user message too long", "test", gt.Labelled("test", user(strings.Repeat("x", maxPayload+1))), errUnreadable},
		{"a user message of nothing", "test", gt.Labelled("test", []byte{gt.User}), errUnreadable},
		{"more behind a message", "test", gt.Labelled("test", append(ping, 0)), errUnreadable},
		{"fields of another kind", "test", gt.Labelled("test", []byte{gt.Ping, 0x81, 0xa1, 'x', 0x91, 0x01}), errUnreadable},
		{"a key that is no text", "test", gt.Labelled("test", []byte{gt.Ping, 0x81, 0x01, 0x01}), errUnreadable},
		{"a long string", "test", gt.Labelled("test", append([]byte{gt.Ping}, long...)), errUnreadable},
		{"a part cut short", "test", gt.Labelled("test", cut[:len(cut)-1]), errUnreadable},
		{"more behind the parts", "test", gt.Labelled("test", append(cut, 0)), errUnreadable},
	} {
		var garbage atomic.Int64
		f := newFilter(tc.cluster, func() bool { return false }, &garbage)
		if err := f.packet(tc.b); !errors.Is(err, tc.want) || tc.want != nil && garbage.Load() != 1 {
			t.Errorf("%s: %v, %d counted; want %v", tc.name, err, garbage.Load(), tc.want)
		}
	}
}

// TestStreamRules: streams are dropped too. The rules: messages that only an answer
// may be, user state beside nodes, and more bytes than a stream's; with a key,
// unencrypted messages, or messages that announce more than a stream.
func TestStreamRules(t *testing.T) {
	node := gt.State("n", net.IPv4(10, 0, 0, 9).To4(), port, 1, nil)
	state := gt.Map(gt.Raw("Nodes"), []byte{0}, gt.Raw("UserStateLen"), gt.U32(20<<20))
	many := make([][]byte, 0, maxNodes)
	for range maxNodes {
		many = append(many, gt.Map(gt.Raw("Name"), gt.Raw(strings.Repeat("n", maxString))))
	}
	for _, tc := range []struct {
		name          string
		keyed, answer bool
		b             []byte
		want          error
		follow        int
	}{
		{"an exchange", false, false, gt.Exchange(1, node), nil, 0},
		{"an answer to a ping", false, true, append([]byte{gt.AckType}, gt.Map(gt.Raw("SeqNo"), gt.U32(5))...), nil, 0},
		{"an answer that comes unasked", false, false, append([]byte{gt.AckType}, gt.Map(gt.Raw("SeqNo"), gt.U32(5))...), errUnreadable, 0},
		{"state of users", false, false, append([]byte{gt.PushPull}, state...), errUnreadable, 0},
		{"more than a stream's bytes", false, false, gt.Exchange(maxNodes, many...), errLong, 0},
		{"encrypted", true, false, append([]byte{10}, 0, 0, 1, 0, 1), nil, 255},
		{"encrypted, and too long", true, false, append([]byte{10}, 0, 0x20, 0, 0), errLong, 0},
		{"plain where there is a key", true, false, gt.Exchange(1, node), nil, 0},
	} {
		var garbage atomic.Int64
		f := newFilter("test", func() bool { return tc.keyed }, &garbage)
		b := tc.b
		if !tc.answer {
			b = gt.Labelled("test", b)
		}
		w := &window{more: strings.NewReader(string(b))}
		follow, err := f.stream(w, tc.answer)
		if !errors.Is(err, tc.want) || err == nil && follow != tc.follow {
			t.Errorf("%s: %v, %d may follow; want %v and %d", tc.name, err, follow, tc.want, tc.follow)
		}
		if tc.name == "plain where there is a key" && w.at > len("test")+3 {
			t.Errorf("%s: %d bytes of it were read", tc.name, w.at)
		}
	}
}

// TestStreamEndsWithItsMessage: memberlist reads the checked message, and not what
// follows it on the stream.
func TestStreamEndsWithItsMessage(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	var garbage atomic.Int64
	message := gt.Exchange(0)
	go func() {
		_, _ = near.Write(append(gt.Labelled("test", message), strings.Repeat("x", 100)...))
		_ = near.Close()
	}()
	s := &stream{Conn: far, f: newFilter("test", func() bool { return false }, &garbage)}
	defer s.Close()
	var got []byte
	for b := make([]byte, 64); ; {
		n, err := s.Read(b)
		got = append(got, b[:n]...)
		if err != nil {
			break
		}
	}
	if want := gt.Labelled("test", message); string(got) != string(want) {
		t.Errorf("%q was read, want %q", got, want)
	}
}

// TestWordsOfEachKind: each version that a node names is checked, and its address as
// a word.
func TestWordsOfEachKind(t *testing.T) {
	for name, spoil := range map[string]func(n *memberlist.Node, m *Meta){
		"PMin": func(n *memberlist.Node, m *Meta) { n.PMin = 3 }, "PMax": func(n *memberlist.Node, m *Meta) { n.PMax = 1 },
		"PCur": func(n *memberlist.Node, m *Meta) { n.PCur = 3 }, "DMin": func(n *memberlist.Node, m *Meta) { n.DMin = 1 },
		"DMax": func(n *memberlist.Node, m *Meta) { n.DMax = 1 }, "DCur": func(n *memberlist.Node, m *Meta) { n.DCur = 1 },
		"an address with an escape": func(n *memberlist.Node, m *Meta) { m.Address = "evil\x1b:7947" },
		"an address with a blank":   func(n *memberlist.Node, m *Meta) { m.Address = "two words:7947" },
	} {
		n := memberlist.Node{Name: "a", Addr: net.IPv4(10, 0, 0, 1).To4(), PMin: 1, PMax: 5, PCur: 2}
		m := Meta{Address: "10.0.0.1:7947"}
		if err := checkNode(&n, &m); err != nil {
			t.Fatal(err)
		}
		if spoil(&n, &m); checkNode(&n, &m) == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
}

// TestUnknownRules: the name of a process at a join address is not taken by a process
// elsewhere. The numbers of met processes that wait, and that are asked at once, are
// bounded.
func TestUnknownRules(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		n := c.start(0)
		at := func(name, ip string) *memberlist.Node {
			return &memberlist.Node{Name: name, Addr: net.ParseIP(ip).To4(), Port: port, PMin: 1, PMax: 5, PCur: 2}
		}
		n.unknown.setJoins(&n.mu, []string{at("", ipOf(1)).Address()})
		n.heardOf(at("n1", ipOf(1)), Meta{Epoch: 1})
		n.heardOf(at("n1", ipOf(9)), Meta{Epoch: 2})
		if u, ok := n.UnknownOf("n1"); !ok || u.Meta.Epoch != 1 {
			t.Errorf("%+v", u)
		}
		n.Gossip.mu.Lock()
		n.unknown.met = make([]Unknown, maxUnknown)
		n.Gossip.mu.Unlock()
		if n.Met("n1"); len(n.unknown.met) > maxUnknown {
			t.Errorf("%d wait to be asked", len(n.unknown.met))
		}
		for i := range n.unknown.met {
			n.unknown.met[i] = Unknown{Node: fmt.Sprint("m", i), Address: addressOf(50)}
		}
		if list := n.toRetell(t.Context()); len(list) > maxRetold {
			t.Errorf("%d are asked at once", len(list))
		}
		n.Gossip.mu.Lock()
		n.unknown.met = nil
		n.Gossip.mu.Unlock()
		time.Sleep(time.Second)
	})
}

// TestPayloadsInAPacket: a packet has few payloads, even if they are small.
func TestPayloadsInAPacket(t *testing.T) {
	d := newPayloads()
	for range 4 * maxInPacket {
		d.add(0, []byte("x"), 10)
	}
	if got := len(d.take(3, packet)); got != maxInPacket {
		t.Errorf("%d in one packet", got)
	}
}
