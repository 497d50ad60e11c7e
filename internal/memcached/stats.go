package memcached

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
)

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
