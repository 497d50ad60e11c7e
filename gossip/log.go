package gossip

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"time"

	"golang.org/x/time/rate"
)

// logger takes memberlist's log lines. A line about what another node sent ends with
// where that came from. memberlist does not count these lines, so they are counted
// here.
func (g *Gossip) logger() *log.Logger {
	return log.New(&lines{g: g, few: rate.NewLimiter(linesRate, linesRate)}, "", 0)
}

type lines struct {
	g         *Gossip
	misrouted time.Time // when it was last told; log.Logger calls one at a time
	few       *rate.Limiter
}

// linesRate is how many of memberlist's lines per second are logged, since strangers
// can cause them.
const linesRate = 20

func (l *lines) Write(b []byte) (int, error) {
	b = bytes.TrimSpace(b)
	bad := bytes.HasPrefix(b, []byte("[ERR]")) || bytes.HasPrefix(b, []byte("[WARN]"))
	if bad && bytes.Contains(b, []byte(" from=")) {
		l.g.garbage.Add(1)
	}
	l.g.tellKeys(string(b))
	if bytes.Contains(b, []byte("over TCP but UDP probes failed")) && time.Since(l.misrouted) > time.Minute {
		l.misrouted = time.Now()
		l.g.cfg.Log.Warn("a member answers over TCP and not over UDP: let both through on the gossip port",
			"memberlist", string(b))
	} else if l.g.cfg.Log.Enabled(context.Background(), slog.LevelDebug) && l.few.Allow() {
		l.g.cfg.Log.Debug(string(b))
	}
	return len(b), nil
}
