package session

import (
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/memcached"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// textCount is a counter of stats. The names are memcached's.
type textCount uint8

const (
	cmdGet textCount = iota
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
	textCountsLen
)

var textCountNames = [textCountsLen]string{
	"cmd_get", "cmd_set", "cmd_flush", "cmd_touch", "cmd_meta", "get_hits", "get_misses", "delete_hits",
	"delete_misses", "incr_hits", "incr_misses", "decr_hits", "decr_misses", "cas_hits", "cas_misses", "cas_badval",
	"touch_hits", "touch_misses", "store_too_large",
}

// textCounts count the commands of all connections since the start, or since stats reset.
type textCounts [textCountsLen]atomic.Int64

// textTally counts the gets of a batch, apart from the counters that all connections share.
type textTally struct{ hits, misses int64 }

// get counts a get that was answered in place.
func (n *textTally) get(r *wire.Reply) {
	if r.Status == wire.OK {
		n.hits++
	} else {
		n.misses++
	}
}

func (n *textTally) flush(c *textCounts) {
	if n.hits != 0 {
		c[getHits].Add(n.hits)
	}
	if n.misses != 0 {
		c[getMisses].Add(n.misses)
	}
	if all := n.hits + n.misses; all != 0 {
		c[cmdGet].Add(all)
	}
	*n = textTally{}
}

// outcome counts a request that found its key, or did not.
func (c *textCounts) outcome(r *wire.Reply, hits, misses textCount) {
	switch r.Status {
	case wire.OK, wire.NotStored:
		c[hits].Add(1)
	case wire.Miss:
		c[misses].Add(1)
	}
}

// note counts a request, which has been answered.
func (c *textCounts) note(form *textForm, q *wire.Request, r *wire.Reply) {
	switch form.Verb {
	case memcached.Bad:
	case memcached.Get, memcached.Gets, memcached.MetaGet:
		c.noteGet(q, r)
	case memcached.Gat, memcached.Gats, memcached.Touch:
		c[cmdTouch].Add(1)
		c.outcome(itemReply(r), touchHits, touchMisses)
	case memcached.MetaDebug:
		c[cmdMeta].Add(1)
	case memcached.Delete, memcached.MetaDelete:
		c.outcome(itemReply(r), deleteHits, deleteMisses)
	case memcached.FlushAll:
		c[cmdFlush].Add(1)
	case memcached.Incr, memcached.Decr, memcached.MetaArithmetic:
		if q.Has(wire.Down) {
			c.outcome(r, decrHits, decrMisses)
		} else {
			c.outcome(r, incrHits, incrMisses)
		}
	default:
		c.noteSet(form, r)
	}
}

func (c *textCounts) noteGet(q *wire.Request, r *wire.Reply) {
	list := r.Items
	if q.Op != wire.OpMGet {
		list = []wire.Reply{*r}
	}
	c[cmdGet].Add(int64(len(list)))
	for i := range list {
		if s := list[i].Status; s == wire.OK || s == wire.Stale {
			c[getHits].Add(1)
		} else {
			c[getMisses].Add(1)
		}
	}
}

func (c *textCounts) noteSet(form *textForm, r *wire.Reply) {
	c[cmdSet].Add(1)
	switch {
	case r.Status == wire.TooLarge:
		c[storeTooLarge].Add(1)
	case form.mode != memcached.CAS:
	case r.Status == wire.OK:
		c[casHits].Add(1)
	case r.Status == wire.Miss:
		c[casMisses].Add(1)
	case r.Status == wire.Exists, r.Status == wire.Stale:
		c[casBadval].Add(1)
	}
}

// itemReply returns the reply for the only key of a request.
func itemReply(r *wire.Reply) *wire.Reply {
	if len(r.Items) == 1 {
		return &r.Items[0]
	}
	return r
}

// appendStats appends the answer to stats. The numbers of commands are those of this
// endpoint, the others those of the host.
func (d *TextDoor) appendStats(dst []byte, of *Doors, sub string) []byte {
	switch sub {
	case "":
	case "reset":
		for i := range d.counts {
			d.counts[i].Store(0)
		}
		return append(dst, "RESET\r\n"...)
	case "settings":
		return append(d.appendSettings(dst, of.cfg.Host.Stats().L2.Memory.Limit), memcached.End...)
	case "items", "slabs", "sizes", "conns": // there are no slabs
		return append(dst, memcached.End...)
	default:
		return append(dst, "ERROR\r\n"...)
	}
	s := of.cfg.Host.Stats()
	add := func(name string, v int64) { dst = memcached.AppendStat(dst, name, strconv.FormatInt(v, 10)) }
	add("pid", int64(os.Getpid()))
	add("uptime", s.UptimeMS/1000)
	add("time", time.Now().Unix())
	dst = memcached.AppendStat(dst, "version", s.Server)
	add("pointer_size", strconv.IntSize)
	add("threads", int64(runtime.GOMAXPROCS(0)))
	addConnections(add, d.Conns())
	for i, name := range textCountNames {
		add(name, d.counts[i].Load())
	}
	addStored(add, &s)
	return append(dst, memcached.End...)
}

func addStored(add func(string, int64), s *cachesidecar.Stats) {
	add("limit_maxbytes", s.L2.Memory.Limit)
	add("bytes", s.L2.Memory.Used)
	add("curr_items", s.L2.Entries)
	add("evictions", s.L2.Evicted)
}

func addConnections(add func(string, int64), s rpc.Stats) {
	add("max_connections", s.Limit)
	add("curr_connections", s.Open)
	add("total_connections", s.Accepted)
	add("rejected_connections", s.Rejected)
	add("bytes_read", s.BytesIn)
	add("bytes_written", s.BytesOut)
}

// appendSettings appends those of memcached's settings that mean something here.
func (d *TextDoor) appendSettings(dst []byte, l2Limit int64) []byte {
	for _, s := range [][2]string{
		{"maxbytes", strconv.FormatInt(l2Limit, 10)},
		{"maxconns", strconv.FormatInt(d.Conns().Limit, 10)},
		{"item_size_max", strconv.Itoa(d.MaxValue)},
		{"cas_enabled", "yes"}, {"flush_enabled", "yes"}, {"evictions", "on"},
		{"binding_protocol", "ascii"}, {"udpport", "0"},
	} {
		dst = memcached.AppendStat(dst, s[0], s[1])
	}
	return dst
}
