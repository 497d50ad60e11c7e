package peer

import (
	"crypto/x509"
	"log/slog"
	"strings"
	"testing"
	"unicode"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// FuzzGreeting checks that any first frame of a connection is judged without a panic.
// Messages about it must be short and have no control characters.
func FuzzGreeting(f *testing.F) {
	id := identity("b", 2)
	s := NewServer(id, nil, server.Limits{}, slog.New(slog.DiscardHandler),
		func(kv.Process, Purpose) server.Handler { return nil }, func(kv.NodeID, error) {})
	for _, edit := range []func(*wire.PeerHello){
		func(*wire.PeerHello) {},
		func(h *wire.PeerHello) { h.From.Node = kv.NodeID("\x1b[2J" + strings.Repeat("n", 250)) },
		func(h *wire.PeerHello) { h.Cluster = strings.Repeat("\x00", 300) },
		func(h *wire.PeerHello) { h.Settings = map[string]string{"\x07": "\x07", "max_staleness": "2s"} },
		func(h *wire.PeerHello) { h.Purpose = "other" },
		func(h *wire.PeerHello) { h.WallMS = -1 },
	} {
		h := identity("a", 1).hello(Call)
		edit(&h)
		body := wire.MarshalBody(&h)
		f.Add(wire.AppendRequest(nil, &wire.Request{ID: 1, Op: wire.OpPeerHello, Body: body})[wire.LengthSize:], "b")
	}
	f.Fuzz(func(t *testing.T, frame []byte, name string) {
		var q wire.Request
		var h wire.PeerHello
		if wire.DecodeRequest(frame, &q) != nil {
			return
		}
		c := &session{server: s, arrival: &arrival{}, begun: testenv.Date().UnixMilli()}
		if name != "" {
			c.arrival.proof = &proof{names: []string{name}, root: &x509.Certificate{}}
			s.creds = func() *Credentials { return &Credentials{roots: map[string]*authority{"": nil}} }
		}
		_, err := c.checkGreeting(&q, &h)
		if err == nil && (h.From.Node == "" || name != "" && string(h.From.Node) != name || h.Cluster != id.Cluster) {
			t.Errorf("%+v is greeted", h)
		}
		if err != nil && (len(err.Error()) > 32<<10 || strings.ContainsFunc(err.Error(), unicode.IsControl)) {
			t.Errorf("%d bytes: %q", len(err.Error()), err)
		}
	})
}
