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
	p       record.LanguagesParameters
	scripts *peers.Scripts
	sidecar *peers.Server
	sockets []string // arguments
}

// Languages measures clients in Python and Node, each of which has new processes in each
// round. python and node are the interpreters.
func (b *Bench) Languages(ctx context.Context, p record.LanguagesParameters, python, node string) (rows []record.LanguagesRow, err error) {
	scripts, err := peers.OpenScripts(ctx, b.dir, python, node)
	if err != nil {
		return nil, err
	}
	o := peers.Options{Bytes: socketLimit, KeySize: p.KeySize, ValueSize: p.ValueSize}
	servers, stop, err := b.startAll(ctx, []string{record.Sidecar, record.Redis, record.Memcached}, o)
	if err != nil {
		return nil, err
	}
	defer stop()
	l := &languages{b: b, p: p, scripts: scripts, sidecar: servers[0]}
	for _, s := range servers {
		l.sockets = append(l.sockets, "--"+s.Name, s.Socket)
	}
	for round := range p.Rounds {
		for i := range l.programs() {
			one := l.programs()[(round+i)%len(l.programs())]
			more, err := l.run(ctx, round, one)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", one.language, err)
			}
			rows = append(rows, more...)
		}
	}
	return rows, nil
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
		{record.Python, python(false), threads},
		{record.Python, python(true), threads},
		{record.Node, l.scripts.Node, l.sockets[:4]}, // there is no memcached
	}
}

// scriptTime is for a script beyond its turns: its start, and filling the servers.
const scriptTime = 2 * time.Minute

// run runs a script once, and holds its figures against the sidecar's counts.
func (l *languages) run(ctx context.Context, round int, one script) ([]record.LanguagesRow, error) {
	const mostSides = 32
	turns := time.Duration(mostSides*l.p.Turns.Turns*(l.p.TurnMS+l.p.WarmUpMS)) * time.Millisecond
	limited, cancel := context.WithTimeout(ctx, turns+scriptTime)
	defer cancel()
	before, err := l.reads(ctx)
	if err != nil {
		return nil, err
	}
	args := append([]string{"--round", strconv.Itoa(round)}, one.args...)
	for _, a := range []struct {
		name  string
		value int
	}{
		{"entries", l.p.Keys}, {"key-size", l.p.KeySize}, {"value-size", l.p.ValueSize}, {"turns", l.p.Turns.Turns},
		{"turn", l.p.TurnMS}, {"warm-up", l.p.WarmUpMS}, {"tasks", l.p.Tasks},
	} {
		args = append(args, "--"+a.name, strconv.Itoa(a.value))
	}
	figures, err := one.run(limited, args...)
	if err != nil {
		return nil, err
	}
	after, err := l.reads(ctx)
	if err != nil {
		return nil, err
	}
	asked := map[string]int64{}
	for space, n := range after {
		asked[space] = n - before[space]
	}
	return l.rows(round, one.language, figures, asked)
}

// reads returns how many reads the sidecar has answered, by namespace.
func (l *languages) reads(ctx context.Context) (map[string]int64, error) {
	st, err := l.sidecar.Stats(ctx)
	reads := map[string]int64{}
	for _, ns := range st.Namespaces {
		reads[ns.Name] = ns.Reads() - ns.SharedHits - ns.NearHits
	}
	return reads, err
}

// rows returns the rows of a script's figures, by case. asked is how many reads of the script
// reached the sidecar, by namespace.
func (l *languages) rows(round int, language string, figures []peers.Figure, asked map[string]int64) (rows []record.LanguagesRow, err error) {
	var overSocket int64
	for _, f := range figures {
		if f.Versions != nil {
			maps.Copy(l.b.versions, f.Versions)
			continue
		}
		if len(rows) == 0 || rows[len(rows)-1].Case != f.Case {
			rows = append(rows, record.LanguagesRow{Round: round + 1, Language: language, Case: f.Case, Sides: map[string]record.Calls{}})
		}
		side := record.Calls{Calls: f.Calls, Seconds: f.Seconds}
		switch f.Side {
		case record.OursSocket:
			if f.Case != record.OneSet {
				overSocket += f.Calls
			}
		case record.OursNear:
			side.Asked = asked[nearSpace]
		case record.OursShared:
			side.Asked = asked[sharedSpace]
		}
		if most := int64(askedKeys*l.p.Keys) + side.Calls*askedPercent/100; side.Asked > most {
			return nil, fmt.Errorf("%s: %d reads asked the sidecar, beside %d calls: want at most %d", f.Side, side.Asked, side.Calls, most)
		}
		rows[len(rows)-1].Sides[f.Side] = side
		l.b.logf("round %d: %-6s %-9s %-34s %8.0f k/s, %7.2f µs a call", round+1, language, f.Case, f.Side, side.PerSecond()/1000, side.US())
	}
	if asked[socketSpace] < overSocket {
		return nil, fmt.Errorf("%s: the sidecar answered %d reads, want the %d that were measured, and those of the warming up", record.OursSocket, asked[socketSpace], overSocket)
	}
	return rows, nil
}
