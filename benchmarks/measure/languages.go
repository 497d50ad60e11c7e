package measure

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// Namespaces of the scripts: each kind of client has its own, so that the sidecar's counts
// tell whether they asked it.
const (
	socketSpace = "socket"
	nearSpace   = "near"
	sharedSpace = "shared"
)

// Of the hits in the process so many may have asked the sidecar: askedKeys of each key while
// the program warms up, and askedPercent % of those that are measured.
const (
	askedKeys    = 10
	askedPercent = 5
)

// languages is the comparison of clients in other languages.
type languages struct {
	b       *Bench
	p       record.Parameters
	scripts *peers.Scripts
	sidecar *peers.Server
	sockets []string // arguments
}

// Languages measures clients in Python and Node, each of which has new processes in each
// round.
func (b *Bench) Languages(ctx context.Context, p record.Parameters) {
	scripts := must(peers.OpenScripts(ctx, b.dir, p.Python, p.Node))
	l := &languages{b: b, p: p, scripts: scripts}
	for _, name := range []string{record.Sidecar, record.Redis, record.Memcached} {
		s := b.start(ctx, name, b.options(p, ""))
		if l.sidecar == nil {
			l.sidecar = s
		}
		l.sockets = append(l.sockets, "--"+s.Name, s.Socket)
	}
	for round := range p.Rounds {
		for _, one := range rotated(l.programs(), round) {
			within(one.language, func() { l.run(ctx, round, one) })
		}
	}
}

// script is one process of a round.
type script struct {
	language string
	run      func(ctx context.Context, args ...string) ([]peers.Figure, error)
	args     []string
}

func (l *languages) programs() []script {
	python := func(pure bool) func(context.Context, ...string) ([]peers.Figure, error) {
		return func(ctx context.Context, args ...string) ([]peers.Figure, error) {
			return l.scripts.Python(ctx, pure, args...)
		}
	}
	threads := append([]string{"--threads", strconv.Itoa(l.p.Threads)}, l.sockets...)
	return []script{
		{"Python", python(false), threads},
		{"Python", python(true), threads},
		{"Node", l.scripts.Node, l.sockets[:4]}, // there is no memcached
	}
}

// shape returns what the page calls a script's case.
func (l *languages) shape(language, name string) string {
	return language + ": " + map[string]string{
		"get": "GET, one at a time", "set": "SET, one at a time", "threads": fmt.Sprintf("GET, %d threads", l.p.Threads),
		"tasks": fmt.Sprintf("GET, %d in flight", l.p.Tasks), "hits": "hit in the process", "hits-pure": "hit in the process, without the extension",
	}[name]
}

// scriptTime is for a script beyond its turns: its start, and filling the servers.
const scriptTime = 2 * time.Minute

// run runs a script once, and holds its figures against the sidecar's counts.
func (l *languages) run(ctx context.Context, round int, one script) {
	const mostSides = 32
	turns := time.Duration(mostSides*l.p.Turns*(l.p.TurnMS+l.p.WarmUpMS)) * time.Millisecond
	limited, cancel := context.WithTimeout(ctx, turns+scriptTime)
	defer cancel()
	before := l.reads(ctx)
	args := append([]string{"--round", strconv.Itoa(round)}, one.args...)
	for _, a := range []struct {
		name  string
		value int
	}{
		{"entries", l.p.Keys}, {"key-size", l.p.KeySize}, {"value-size", l.p.ValueSize}, {"turns", l.p.Turns},
		{"turn", l.p.TurnMS}, {"warm-up", l.p.WarmUpMS}, {"tasks", l.p.Tasks},
	} {
		args = append(args, "--"+a.name, strconv.Itoa(a.value))
	}
	figures := must(one.run(limited, args...))
	after := l.reads(ctx)
	asked := map[string]int64{}
	for space, n := range after {
		asked[space] = n - before[space]
	}
	l.keepFigures(one.language, figures, asked)
}

// reads returns how many reads the sidecar has answered, by namespace.
func (l *languages) reads(ctx context.Context) map[string]int64 {
	reads := map[string]int64{}
	for _, ns := range must(l.sidecar.Stats(ctx)).Namespaces {
		reads[ns.Name] = ns.Reads() - ns.SharedHits - ns.NearHits
	}
	return reads
}

// keepFigures keeps a script's figures. asked is how many reads of the script reached the sidecar, by namespace.
func (l *languages) keepFigures(language string, figures []peers.Figure, asked map[string]int64) {
	spaces := map[string]string{record.OursNear: nearSpace, record.OursShared: sharedSpace}
	var overSocket int64
	for _, f := range figures {
		if f.Versions != nil {
			maps.Copy(l.b.versions, f.Versions)
			continue
		}
		of := []figure{{"µs a call", 1e6 * f.Seconds / float64(f.Calls)}, {"calls/s", float64(f.Calls) / f.Seconds}}
		if f.Side == record.OursSocket && f.Case != "set" {
			overSocket += f.Calls
		}
		if space, ok := spaces[f.Side]; ok {
			if most := int64(askedKeys*l.p.Keys) + f.Calls*askedPercent/100; asked[space] > most {
				fail("%s: %d reads asked the sidecar, beside %d calls: want at most %d", f.Side, asked[space], f.Calls, most)
			}
			of = append(of, figure{"asked the sidecar, %", 100 * float64(asked[space]) / float64(f.Calls)})
		}
		l.b.put(l.shape(language, f.Case), f.Side, of...)
	}
	if asked[socketSpace] < overSocket {
		fail("%s: the sidecar answered %d reads, want the %d that were measured, and those of the warming up", record.OursSocket, asked[socketSpace], overSocket)
	}
}
