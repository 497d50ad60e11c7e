package session

import (
	"log/slog"
	"slices"

	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// welcome answers a HELLO.
func (c *Handler) welcome() wire.Reply {
	h := &c.Req.Hello
	version, ok := wire.Common(h.Versions)
	if !ok {
		return wire.ErrorReply(wire.Errorf(wire.Unsupported,
			"the client speaks protocol versions %v, this sidecar (%s) speaks %v: upgrade the older of the two",
			h.Versions, c.Doors.Version, wire.Versions))
	}
	if err := c.By.Show(h.Token); err != nil {
		return wire.ErrorReply(err)
	}
	if h.Namespace != "" {
		if !kv.ValidNamespace(h.Namespace) {
			return wire.ErrorReply(namespaces.BadName([]byte(h.Namespace)))
		}
		c.Namespace = []byte(h.Namespace)
	}
	c.hello = true
	c.LogLine(slog.LevelDebug, "hello", "client", h.Client)
	l := c.Doors.Limits()
	return wire.BodyReply(wire.Welcome{
		Version: version, Node: c.Core.Config.Node, Server: c.Doors.Version, Features: c.features(),
		Limits: wire.Limits{
			Key: kv.MaxKeyLen, Value: c.Core.Config.MaxValue, Frame: l.MaxFrame, Keys: wire.MaxKeys,
			InFlight: l.MaxInFlight, TTLMS: wire.MaxTTL, TimeoutMS: c.Core.Deadlines.Default().Milliseconds(),
		},
		Epoch: uint64(c.Core.Node.Self().Epoch),
		Hash:  wire.Hashing{Name: wire.HashName, Seed: c.Core.Config.Seed, Partitions: kv.Partitions},
		Boot:  wire.BootClock{ID: c.Doors.BootClock, NowNS: uint64(c.Core.Clock.Read().Boot)},
	})
}

// features lists the operations that are served: without shared memory one fewer.
func (c *Handler) features() []string {
	if m := c.Doors.Memory; m != nil && m.Offered() {
		return engine.Features
	}
	return slices.DeleteFunc(slices.Clone(engine.Features), func(name string) bool { return name == "shared" })
}
