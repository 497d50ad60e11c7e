package session

import (
	"log/slog"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Refusal returns why a request is refused, or nil if it may be served.
func (c *Session) Refusal(q *wire.Request) *wire.Error {
	line := 0
	if last := c.Names.Last; last != nil && last.Name == string(q.Namespace) {
		line = int(last.Line)
	} else {
		line = c.Core.Access.Line(q.Namespace)
	}
	err, missing := c.By.Refusal(q, line)
	if err != nil && !c.told {
		c.told = true
		c.log(slog.LevelWarn, "refused a request: its user lacks a right; more refusals of this connection are not logged",
			"op", q.Op.String(), "right", missing.String(), "namespace", string(q.Namespace))
	}
	return err
}
