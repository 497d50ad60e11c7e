package report

import (
	"fmt"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// comparison is one case of a language.
type comparison struct {
	language, name string // of the rows
	what           string // on the page
	sides          []string
}

func comparisons(p record.LanguagesParameters) []comparison {
	tasks, threads := fmt.Sprintf("GET, %d in flight", p.Tasks), fmt.Sprintf("GET, %d threads", p.Threads)
	one := []string{record.OursSocket, record.RedisPy, record.RedisPyParser, record.RedisPyOne, record.Pymemcache}
	inNode := []string{record.OursSocket, record.NodeRedis, record.Ioredis}
	return []comparison{
		{record.Python, record.OneGet, "GET, one at a time", one},
		{record.Python, record.OneSet, "SET, one at a time", one},
		{record.Python, record.InThreads, threads, []string{record.OursSocket, record.RedisPy, record.Pymemcache}},
		{record.Python, record.InTasks, tasks, one[:4]},
		{record.Python, record.InProcess, "hit in the process", []string{record.OursNear, record.OursShared, record.LRUCache, record.RedisPy}},
		{record.Python, record.PureHits, "hit in the process, without the extension", []string{record.OursShared, record.LRUCache, record.RedisPy}},
		{record.Node, record.OneGet, "GET, one at a time", inNode},
		{record.Node, record.OneSet, "SET, one at a time", inNode},
		{record.Node, record.InTasks, tasks, append(inNode[:3:3], record.IoredisAuto)},
		{record.Node, record.InProcess, "hit in the process", []string{record.OursNear, record.MapInNode, record.NodeRedis}},
	}
}

// languagesSection is the section on clients in other languages.
func languagesSection(rounds string) (section, error) {
	f, err := record.Read[record.LanguagesParameters, record.LanguagesRow](rounds, record.Languages)
	if err != nil {
		return section{}, err
	}
	p := f.Parameters
	s := section{title: "Clients in other languages", head: f.Head}
	absolute := table{head: []string{"case", "client", "µs a call", "min", "max", "calls/s"}, left: 2}
	for _, c := range comparisons(p) {
		var rows []record.LanguagesRow
		for _, r := range f.Rows {
			if r.Language != c.language || r.Case != c.name {
				continue
			}
			for _, side := range c.sides {
				if r.Sides[side].Calls == 0 {
					return section{}, fmt.Errorf("round %d of %s, %s has no figures of %s", r.Round, c.language, c.what, side)
				}
			}
			rows = append(rows, r)
		}
		s.rows = append(s.rows, languageRows(c, rows)...)
		for _, side := range c.sides {
			us := each(rows, func(r record.LanguagesRow) float64 { return r.Sides[side].US() })
			calls := each(rows, func(r record.LanguagesRow) float64 { return r.Sides[side].PerSecond() })
			absolute.add(c.language+", "+c.what, side, fmt.Sprintf("%.2f", us.median), fmt.Sprintf("%.2f", us.least), fmt.Sprintf("%.2f", us.most), rate(calls.median))
		}
	}
	s.body = fmt.Sprintf("Each client asks a server on a Unix socket for %s keys of %d bytes with values of %d (bytes in Python, text in Node), and every value is compared with the one that was set. "+
		"A time is the mean of a round's calls; where more than one is under way, it is the time between two answers. ", thousands(int64(p.Keys)), p.KeySize, p.ValueSize) +
		fmt.Sprintf("redis-py's event loop has a pool of %d connections; with one connection it has one call in flight, and the others wait. ", p.Tasks) +
		fmt.Sprintf("Of the hits in the process at most %s %% of a round's asked the sidecar, those of the warming up included: by its own count.\n\n", fmt.Sprintf("%.2f", askedPercent(f.Rows))) +
		"Absolute figures; those in µs with a target hold for this machine alone:\n\n" + absolute.String()
	return s, nil
}

// each is the spread of a figure over the rounds.
func each(rows []record.LanguagesRow, figure func(record.LanguagesRow) float64) spread {
	var v []float64
	for _, r := range rows {
		v = append(v, figure(r))
	}
	return spreadOf(v)
}

// askedPercent returns the largest share of hits in the process that asked the sidecar.
func askedPercent(rows []record.LanguagesRow) (most float64) {
	for _, r := range rows {
		for _, c := range r.Sides {
			most = max(most, 100*float64(c.Asked)/float64(c.Calls))
		}
	}
	return most
}

// languageRows compares the sides of one case.
func languageRows(c comparison, rows []record.LanguagesRow) (list []row) {
	what := c.language + ": " + c.what
	ours, others := c.sides[0], c.sides[1:]
	switch {
	case c.name == record.InProcess || c.name == record.PureHits:
		return hitRows(c, what, rows)
	case c.language == record.Python && c.name != record.InTasks && c.name != record.InThreads:
		goal := getOfPeers
		if c.name == record.OneSet {
			goal = nil
		}
		for _, o := range others {
			ratio := each(rows, func(r record.LanguagesRow) float64 { return r.Sides[ours].US() / r.Sides[o].US() })
			list = append(list, row{what, "time of a call, over the socket / " + o, ratio, "%.2f", goal})
		}
		return list
	}
	goal := map[[2]string]*target{
		{record.Python, record.InTasks}: tasksOfPeers, {record.Node, record.OneGet}: nodeOfPeers, {record.Node, record.InTasks}: ahead,
	}[[2]string{c.language, c.name}]
	for _, o := range others {
		ratio := each(rows, func(r record.LanguagesRow) float64 { return r.Sides[ours].PerSecond() / r.Sides[o].PerSecond() })
		list = append(list, row{what, "calls/s, over the socket / " + o, ratio, "%.2f", goal})
	}
	return list
}

// hitRows gives the time of a hit that asks no server, and holds it against a cache that knows
// of no other process, and against a server.
func hitRows(c comparison, what string, rows []record.LanguagesRow) (list []row) {
	local, server := c.sides[len(c.sides)-2], c.sides[len(c.sides)-1]
	goal := hitUS
	switch {
	case c.name == record.PureHits:
		goal = hitUSPure
	case c.language == record.Node:
		goal = nil
	}
	for _, ours := range c.sides[:len(c.sides)-2] {
		us := each(rows, func(r record.LanguagesRow) float64 { return r.Sides[ours].US() })
		times := each(rows, func(r record.LanguagesRow) float64 { return r.Sides[ours].US() / r.Sides[local].US() })
		saved := each(rows, func(r record.LanguagesRow) float64 { return r.Sides[server].US() / r.Sides[ours].US() })
		list = append(list,
			row{what, ours + ", µs", us, "%.2f", goal},
			row{what, "time of a call, " + ours + " / " + local, times, "%.1f", nil},
			row{what, "time of a call, " + server + " / " + ours, saved, "%.0f", nil})
	}
	return list
}
