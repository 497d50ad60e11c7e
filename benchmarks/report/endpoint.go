package report

import (
	"fmt"
	"slices"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// endpointSides are the sides in the order of the table, with their names there.
var endpointSides = []struct{ side, called string }{
	{record.Sidecar, "own protocol"},
	{record.EndpointText, "endpoint, text"},
	{record.EndpointMeta, "endpoint, meta"},
	{record.MemcachedText, "memcached, text"},
	{record.MemcachedMeta, "memcached, meta"},
}

// sidesOf returns the sides of a load on the endpoint.
func sidesOf(l load) (list []string) {
	if l.op == record.MultiGet {
		return []string{record.EndpointText, record.MemcachedText}
	}
	for _, s := range endpointSides {
		list = append(list, s.side)
	}
	return list
}

func endpointSection(rounds string) (section, error) {
	f, err := record.Read[record.SocketParameters, record.SocketRow](rounds, record.Endpoint)
	if err != nil {
		return section{}, err
	}
	loads, err := loadsOf(record.Endpoint, f.Rows, sidesOf)
	if err != nil {
		return section{}, err
	}
	s := section{title: "The endpoint for memcached's protocol", head: f.Head}
	absolute := absoluteTable("side")
	for _, l := range loads {
		s.rows = append(s.rows, endpointRows(l)...)
		has := sidesOf(l)
		for _, side := range endpointSides {
			if slices.Contains(has, side.side) {
				absolute.addLoad(l, side.side, side.called)
			}
		}
	}
	p := f.Parameters
	s.body = fmt.Sprintf("One sidecar serves its own socket and the endpoint, a Unix socket as well. "+
		"Loads are connections × requests in flight on each;\n"+
		"of a line with many keys, one is in flight, and each key counts. "+
		"%s keys of %d bytes, drawn uniformly; values of %d bytes; %d rounds,\n"+
		"in each of which every side had %d turns of %d ms. "+
		"Client and servers share the cores. Latency is of a whole batch, or line.\n"+
		"That a hit or a set over the endpoint allocates nothing is checked by `TestHitAllocatesNothing` of package session.\n\n",
		thousands(int64(p.Keys)), p.KeySize, p.ValueSize, p.Rounds, p.Turns.Turns, p.TurnMS)
	s.body += "Absolute figures, as context:\n\n" + absolute.String()
	return s, nil
}

// endpointRows returns a load's ratios with their targets.
func endpointRows(l load) (rows []row) {
	add := func(figure string, t *target, side string, others ...string) {
		rows = append(rows, row{l.String(), figure, l.ratioOf(side, others...), "%.2f", t})
	}
	if l.op == record.MultiGet {
		add("endpoint, text / memcached, text", nil, record.EndpointText, record.MemcachedText)
		return rows
	}
	var better *target
	if l.pipeline > 1 {
		better = endpointOfMemcached
	}
	for _, c := range []struct{ side, called string }{
		{record.EndpointText, "endpoint, text"},
		{record.EndpointMeta, "endpoint, meta"},
	} {
		add(c.called+" / own protocol", endpointOfOwn, c.side, record.Sidecar)
		add(c.called+" / better of memcached's text and meta", better, c.side, record.MemcachedText, record.MemcachedMeta)
	}
	return rows
}
