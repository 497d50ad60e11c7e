package memcached

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// count is a counter of stats. The names are memcached's.
type count uint8

const (
	cmdGet count = iota
	cmdSet
	cmdFlush
	cmdTouch
	cmdMeta
	getHits
	getMisses
	deleteHits
	deleteMisses
	incrHits
	incrMisses
	decrHits
	decrMisses
	casHits
	casMisses
	casBadval
	touchHits
	touchMisses
	storeTooLarge
	totalItems
	countsLen
)

var countNames = [countsLen]string{
	"cmd_get", "cmd_set", "cmd_flush", "cmd_touch", "cmd_meta", "get_hits", "get_misses", "delete_hits",
	"delete_misses", "incr_hits", "incr_misses", "decr_hits", "decr_misses", "cas_hits", "cas_misses", "cas_badval",
	"touch_hits", "touch_misses", "store_too_large",
	"total_items",
}

// counts count the commands of all connections since the start.
type counts [countsLen]atomic.Int64

// tally counts the commands of a batch, apart from the counters that all connections
// share.
type tally [countsLen]int64

// flush adds the tally to the counters.
func (n *tally) flush(c *counts) {
	for i, v := range n {
		if v != 0 {
			c[i].Add(v)
			n[i] = 0
		}
	}
}

// get counts a get that was answered with a status.
func (n *tally) get(s wire.Status) {
	n[cmdGet]++
	if s == wire.OK || s == wire.Stale {
		n[getHits]++
	} else {
		n[getMisses]++
	}
}

// outcome counts a request that found its key, or did not.
func (n *tally) outcome(r *wire.Reply, hits, misses count) {
	switch r.Status {
	case wire.OK, wire.NotStored:
		n[hits]++
	case wire.Miss:
		n[misses]++
	}
}

// note counts a request, which has been answered.
func (n *tally) note(f *form, q *wire.Request, r *wire.Reply) {
	switch f.verb {
	case Invalid:
		if f.err == TooLarge {
			n[storeTooLarge]++
		}
	case Get, Gets, MetaGet:
		if q.Op != wire.OpMGet {
			n.get(r.Status)
		}
		for i := range r.Items {
			n.get(r.Items[i].Status)
		}
	case Gat, Gats, Touch:
		n[cmdTouch]++
		n.outcome(r, touchHits, touchMisses)
	case MetaDebug:
		n[cmdMeta]++
	case Delete, MetaDelete:
		n.outcome(r, deleteHits, deleteMisses)
	case FlushAll:
		n[cmdFlush]++
	case Incr, MetaArithmetic:
		if q.Has(wire.Down) {
			n.outcome(r, decrHits, decrMisses)
		} else {
			n.outcome(r, incrHits, incrMisses)
		}
	default:
		n.set(f, r)
	}
}

// set counts a command that brings a value.
func (n *tally) set(f *form, r *wire.Reply) {
	n[cmdSet]++
	if r.Status == wire.OK && !f.expired {
		n[totalItems]++
	}
	switch {
	case r.Status == wire.TooLarge:
		n[storeTooLarge]++
	case f.mode != wire.ModeCAS:
	case r.Status == wire.OK:
		n[casHits]++
	case r.Status == wire.Miss:
		n[casMisses]++
	case r.Status == wire.Exists, r.Status == wire.Stale:
		n[casBadval]++
	}
}

// appendStat appends one line of the answer to stats.
func appendStat(dst []byte, name string, v any) []byte {
	return fmt.Appendf(dst, "STAT %s %v\r\n", name, v)
}

// appendStats appends the answer to stats. The numbers of commands are those of this
// endpoint, the others those of the host.
func (d *Endpoint) appendStats(dst []byte, sub string) []byte {
	switch sub {
	case "":
	case "reset":
		d.mu.Lock()
		defer d.mu.Unlock()
		for i := range d.counts {
			d.base[i] = d.counts[i].Load()
		}
		return append(dst, "RESET\r\n"...)
	case "settings":
		return append(d.appendSettings(dst, d.Sessions.Host.Stats().L2.Memory.Limit), end...)
	case "slabs": // there are none, of which tools want to know two numbers
		dst = appendStat(dst, "active_slabs", "0")
		dst = appendStat(dst, "total_malloced", d.Sessions.Host.Stats().L2.Memory.Used)
		return append(dst, end...)
	case "sizes":
		return append(appendStat(dst, "sizes_status", "disabled"), end...)
	case "items", "conns", "extstore":
		return append(dst, end...)
	default:
		return append(dst, "ERROR\r\n"...)
	}
	s := d.Sessions.Host.Stats()
	add := func(name string, v int64) { dst = appendStat(dst, name, v) }
	add("pid", int64(os.Getpid()))
	add("uptime", s.UptimeMS/1000)
	add("time", time.Now().Unix())
	dst = appendStat(dst, "version", version)
	dst = appendStat(dst, "sidecar_version", d.Sessions.Version)
	dst = appendUsage(dst)
	add("pointer_size", strconv.IntSize)
	add("threads", int64(runtime.GOMAXPROCS(0)))
	addConnections(add, d.Conns())
	d.mu.Lock()
	for i, name := range countNames {
		add(name, d.counts[i].Load()-d.base[i])
	}
	d.mu.Unlock()
	addStored(add, &s)
	for _, name := range notHere {
		add(name, 0)
	}
	return append(dst, end...)
}

// notHere are statistics that tools of memcached read, and that are about parts of it which this
// program does not have.
var notHere = []string{
	"auth_cmds", "auth_errors", "conn_yields", "hash_is_expanding", "hash_power_level", "slabs_moved",
	"slab_reassign_running", "lru_crawler_starts", "crawler_items_checked", "crawler_reclaimed", "direct_reclaims",
	"moves_to_cold", "moves_to_warm", "moves_within_lru", "reclaimed",
}

// appendUsage appends the time that the process has spent on processors.
func appendUsage(dst []byte) []byte {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return dst
	}
	dst = appendStat(dst, "rusage_user", fmt.Sprintf("%d.%06d", u.Utime.Sec, u.Utime.Usec))
	return appendStat(dst, "rusage_system", fmt.Sprintf("%d.%06d", u.Stime.Sec, u.Stime.Usec))
}

func addStored(add func(string, int64), s *cachesidecar.Stats) {
	add("limit_maxbytes", s.L2.Memory.Limit)
	m := &s.L2.Memory
	add("bytes", m.Payload+m.Headers+m.Alignment)
	add("curr_items", s.L2.Entries)
	add("evictions", s.L2.Evicted)
	add("hash_bytes", m.Index)
	add("total_malloced", m.Used)
	add("store_no_memory", s.L2.NoRoom)
}

func addConnections(add func(string, int64), s server.Stats) {
	add("max_connections", s.Limit)
	add("curr_connections", s.Open)
	add("connection_structures", s.Open)
	add("total_connections", s.Accepted)
	add("rejected_connections", s.Rejected)
	// Above its limit the endpoint closes what it has accepted: it never stops to accept.
	add("accepting_conns", 1)
	add("listen_disabled_num", 0)
	add("time_in_listen_disabled_us", 0)
	add("bytes_read", s.BytesIn)
	add("bytes_written", s.BytesOut)
}

// Stats returns the statistics of the endpoint.
func (d *Endpoint) Stats() cachesidecar.MemcachedStats {
	c := d.Conns()
	s := cachesidecar.MemcachedStats{
		Open: c.Open, Limit: c.Limit, Accepted: c.Accepted, Rejected: c.Rejected, SlowReaders: c.SlowReaders,
		SlowCommands: c.SlowFrames, BadCommands: c.BadFrames, OverBudget: c.OverBudget, Dropped: c.Dropped,
		InFlight: c.InFlight, BytesIn: c.BytesIn, BytesOut: c.BytesOut, Commands: map[string]int64{},
	}
	for i, name := range countNames {
		s.Commands[name] = d.counts[i].Load()
	}
	return s
}

// appendSettings appends those of memcached's settings that mean something here.
func (d *Endpoint) appendSettings(dst []byte, l2Limit int64) []byte {
	socket, host, port := "NULL", "NULL", "0"
	if strings.Contains(d.Address, "/") {
		socket = d.Address
	} else if h, p, err := net.SplitHostPort(d.Address); err == nil {
		host, port = h, p
	}
	for _, s := range []struct {
		name string
		v    any
	}{
		{"maxbytes", l2Limit}, {"maxconns", d.Conns().Limit}, {"item_size_max", d.MaxValue},
		{"domain_socket", socket}, {"auth_enabled_sasl", "no"}, {"auth_enabled_ascii", "no"},
		{"shutdown_command", "no"}, {"cas_enabled", "yes"}, {"flush_enabled", "yes"}, {"evictions", "on"},
		{"binding_protocol", "ascii"}, {"tcpport", port}, {"udpport", "0"}, {"inter", host}, {"verbosity", "0"},
		{"num_threads", runtime.GOMAXPROCS(0)}, {"reqs_per_event", server.MaxServe},
		{"detail_enabled", "no"}, {"dump_enabled", "no"}, {"lru_crawler", "no"}, {"slab_reassign", "no"},
	} {
		dst = appendStat(dst, s.name, s.v)
	}
	return dst
}
