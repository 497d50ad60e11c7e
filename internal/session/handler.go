package session

import (
	"log/slog"
	"slices"
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Handler serves a connection in the socket's protocol: an app's, or another sidecar's.
type Handler struct {
	*Session
	Namespace []byte // the connection's default namespace

	hello  bool
	brief  bool        // it asks for the shared memory: the app may end before it has it
	passed *descriptor // the latest descriptor of the shared memory; nil: none
	order  order
	tokens tokens

	watching atomic.Int64 // WATCHes that wait
	leasing  atomic.Int64 // LEASEs that wait, anywhere
	queued   atomic.Int64 // work of requests that wait for their turn
}

func (c *Handler) nameOf(q *wire.Request) []byte {
	if q.Namespace == nil {
		return c.Namespace
	}
	return q.Namespace
}

// keys returns the hashes of the keys of c.Req. They are valid until the next call.
func (c *Handler) keys() []kv.Hash {
	q := c.Req
	c.own = c.own[:0]
	if q.Key != nil {
		c.own = append(c.own, c.Core.Namespaces.Hash(q.Namespace, q.Key))
	}
	for _, k := range q.Keys {
		c.own = append(c.own, c.Core.Namespaces.Hash(q.Namespace, k))
	}
	return c.own
}

func (c *Handler) answerError(conn *server.Conn, err *wire.Error) {
	c.Refuse(err)
	c.appendReply(conn)
}

// appendReply appends c.Reply to the answers of the batch.
func (c *Handler) appendReply(conn *server.Conn) {
	c.Reply.ID = c.Req.ID
	conn.Out = wire.AppendReply(conn.Out, c.Req.Op, &c.Reply)
}

// welcome answers a HELLO.
func (c *Handler) welcome() wire.Reply {
	h := &c.Req.Hello
	version, ok := wire.Common(h.Versions)
	if !ok {
		return wire.ErrorReply(wire.Errorf(wire.Unsupported,
			"the client speaks protocol versions %v, this sidecar (%s) speaks %v: upgrade the older of the two",
			h.Versions, c.Sessions.Version, wire.Versions))
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
	l := c.Sessions.Limits()
	return wire.BodyReply(wire.Welcome{
		Version: version, Node: c.Core.Config.Node, Server: c.Sessions.Version, Features: c.features(),
		Limits: wire.Limits{
			Key: kv.MaxKeyLen, Value: c.Core.Config.MaxValue, Frame: l.MaxFrame, Keys: wire.MaxKeys,
			InFlight: l.MaxInFlight, TTLMS: wire.MaxTTL, TimeoutMS: c.Core.Deadlines.Default().Milliseconds(),
		},
		Epoch: uint64(c.Core.Node.Self().Epoch),
		Hash:  wire.Hashing{Name: wire.HashName, Seed: c.Core.Config.Seed, Partitions: kv.Partitions},
		Boot:  wire.BootClock{ID: c.Sessions.BootClock, NowNS: uint64(c.Core.Clock.Read().Boot)},
	})
}

// features lists what not every sidecar serves, and this one does: without shared memory one less.
func (c *Handler) features() []string {
	if c.Core.Regions.Offered() {
		return wire.Features
	}
	return slices.DeleteFunc(slices.Clone(wire.Features), func(name string) bool { return name == "shared" })
}
