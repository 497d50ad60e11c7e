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

// outcome counts a request that found its key, or did not. Behind the counter of hits stands that of
// misses.
func (n *tally) outcome(r *wire.Reply, hits count) {
	switch r.Status {
	case wire.OK, wire.NotStored:
		n[hits]++
	case wire.Miss:
		n[hits+1]++
	}
}

// noteRequest counts a request, which has been answered.
func (n *tally) noteRequest(f *form, q *wire.Request, r *wire.Reply) {
	switch f.verb {
	case verbFixed:
		if f.line == tooLarge {
			n[storeTooLarge]++
		}
	case verbGet, verbGets, verbMetaGet:
		if q.Op != wire.OpMGet {
			n.get(r.Status)
		}
		for i := range r.Items {
			n.get(r.Items[i].Status)
		}
	case verbGat, verbGats, verbTouch:
		n[cmdTouch]++
		n.outcome(r, touchHits)
	case verbMetaDebug:
		n[cmdMeta]++
	case verbDelete, verbMetaDelete:
		n.outcome(r, deleteHits)
	case verbFlushAll:
		n[cmdFlush]++
	case verbIncr, verbMetaArithmetic:
		if q.Has(wire.Down) {
			n.outcome(r, decrHits)
		} else {
			n.outcome(r, incrHits)
		}
	default:
		n.set(f, r)
	}
}

// set counts a command that brings a value.
func (n *tally) set(f *form, r *wire.Reply) {
	n[cmdSet]++
	switch {
	case r.Status == wire.TooLarge:
		n[storeTooLarge]++
	case r.Status == wire.OK && !f.expired:
		n[totalItems]++
	}
	if f.mode != wire.ModeCAS {
		return
	}
	if n.outcome(r, casHits); r.Status == wire.Exists || r.Status == wire.Stale {
		n[casBadval]++
	}
}

// appendStats appends the answer to stats. The numbers of commands are those of this
// endpoint, the others those of the host.
func (d *Endpoint) appendStats(dst []byte, sub string) []byte {
	var list []stat
	switch sub {
	case "":
		list = d.stats()
	case "reset":
		d.mu.Lock()
		defer d.mu.Unlock()
		for i := range d.counts {
			d.base[i] = d.counts[i].Load()
		}
		return append(dst, "RESET\r\n"...)
	case "settings":
		list = d.settings()
	case "slabs": // there are none, of which tools want to know two numbers
		list = []stat{{"active_slabs", 0}, {"total_malloced", d.Sessions.Host.Stats().L2.Memory.Used}}
	case "sizes":
		list = []stat{{"sizes_status", "disabled"}}
	case "items", "conns", "extstore":
	default:
		return append(dst, "ERROR\r\n"...)
	}
	for _, s := range list {
		dst = fmt.Appendf(dst, "STAT %s %v\r\n", s.name, s.v)
	}
	return append(dst, end...)
}

// stat is a line of the answer to stats.
type stat struct {
	name string
	v    any
}

func (d *Endpoint) stats() []stat {
	s, c := d.Sessions.Host.Stats(), d.Conns()
	m := &s.L2.Memory
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used) // it knows this process
	list := []stat{
		{"pid", os.Getpid()}, {"uptime", s.UptimeMS / 1000}, {"time", time.Now().Unix()}, {"version", version},
		{"sidecar_version", d.Sessions.Version}, {"rusage_user", seconds(used.Utime)},
		{"rusage_system", seconds(used.Stime)}, {"pointer_size", strconv.IntSize}, {"threads", runtime.GOMAXPROCS(0)},
		{"max_connections", c.Limit}, {"curr_connections", c.Open}, {"connection_structures", c.Open},
		{"total_connections", c.Accepted}, {"rejected_connections", c.Rejected},
		// Above its limit the endpoint closes what it has accepted: it never stops to accept.
		{"accepting_conns", 1}, {"listen_disabled_num", 0}, {"time_in_listen_disabled_us", 0},
		{"bytes_read", c.BytesIn}, {"bytes_written", c.BytesOut},
	}
	d.mu.Lock()
	for i, name := range countNames {
		list = append(list, stat{name, d.counts[i].Load() - d.base[i]})
	}
	d.mu.Unlock()
	list = append(list,
		stat{"limit_maxbytes", m.Limit}, stat{"bytes", m.Payload + m.Headers + m.Alignment},
		stat{"curr_items", s.L2.Entries}, stat{"evictions", s.L2.Evicted}, stat{"hash_bytes", m.Index},
		stat{"total_malloced", m.Used}, stat{"store_no_memory", s.L2.NoRoom})
	for _, name := range notHere {
		list = append(list, stat{name, 0})
	}
	return list
}

// seconds returns a time that the process has spent on processors, as memcached says it.
func seconds(t syscall.Timeval) string { return fmt.Sprintf("%d.%06d", t.Sec, t.Usec) }

// notHere are statistics that tools of memcached read, and that are about parts of it which this
// program does not have.
var notHere = []string{
	"auth_cmds", "auth_errors", "conn_yields", "hash_is_expanding", "hash_power_level", "slabs_moved",
	"slab_reassign_running", "lru_crawler_starts", "crawler_items_checked", "crawler_reclaimed", "direct_reclaims",
	"moves_to_cold", "moves_to_warm", "moves_within_lru", "reclaimed",
}

// settings returns those of memcached's settings that mean something here.
func (d *Endpoint) settings() []stat {
	socket, host, port := "NULL", "NULL", "0"
	if strings.Contains(d.Address, "/") {
		socket = d.Address
	} else if h, p, err := net.SplitHostPort(d.Address); err == nil {
		host, port = h, p
	}
	return []stat{
		{"maxbytes", d.Sessions.Host.Stats().L2.Memory.Limit}, {"maxconns", d.Conns().Limit},
		{"item_size_max", d.MaxValue}, {"domain_socket", socket}, {"auth_enabled_sasl", "no"},
		{"auth_enabled_ascii", "no"}, {"shutdown_command", "no"}, {"cas_enabled", "yes"}, {"flush_enabled", "yes"},
		{"evictions", "on"}, {"binding_protocol", "ascii"}, {"tcpport", port}, {"udpport", 0}, {"inter", host},
		{"verbosity", 0}, {"num_threads", runtime.GOMAXPROCS(0)}, {"reqs_per_event", server.MaxFrames},
		{"detail_enabled", "no"}, {"dump_enabled", "no"}, {"lru_crawler", "no"}, {"slab_reassign", "no"},
	}
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
