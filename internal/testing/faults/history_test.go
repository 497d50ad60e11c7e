package faults

import (
	"fmt"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/history"
)

// The kinds and outcomes of requests. Package verify judges them. One goroutine writes a key
// at a time, so a key's writes are in the order of their numbers.
type (
	kind    = history.Kind
	outcome = history.Outcome
)

const (
	get   = history.Read
	set   = history.Set
	del   = history.Delete
	flush = history.Flush

	done        = history.Done
	absent      = history.Absent
	degraded    = history.Degraded
	unavailable = history.Unavailable
	busy        = history.Busy
	unknown     = history.Unknown
	silent      = history.Silent
	failed      = history.Failed
	old         = history.Old
	odd         = history.Odd
)

// op is one request for one key, with its result. Times count from the start of the
// history.
type op struct {
	kind       kind
	key        int
	seq        int // the number of the write, or of the value that a get read
	node       int // the sidecar that was asked
	life       int // the number of its process; below zero: either process may have been asked
	downs      int // how often apps had stopped using it before
	start, end time.Duration
	allowed    time.Duration // the request's timeout
	out        outcome
	gone       bool   // the process ended or was paused meanwhile
	note       string // text of an error; source of a value
	ttl        time.Duration
}

// late returns how long after its timeout the answer came.
func (o *op) late() time.Duration { return o.end - o.start - o.allowed }

// plain returns the request as package history has it.
func (o *op) plain() history.Op {
	p := history.Op{
		Kind: o.kind, Outcome: o.out, Number: int64(o.seq), Began: o.start, Ended: o.end,
		TTL: o.ttl, Timeout: o.allowed, Gone: o.gone, Note: o.note,
	}
	if o.kind != flush {
		p.Key = keyName(o.key)
	}
	if o.life >= 0 {
		p.Host = fmt.Sprintf("n%d.%d", o.node, o.life)
	}
	return p
}

func (o *op) String() string { p := o.plain(); return p.String() }

const never = time.Duration(1<<63 - 1)

// broken lists what is wrong with a load's history, shortened: values by the bound, and
// answers that are late, odd, or errors of reads without an excuse.
func (l *load) broken(bound time.Duration, split *stall) []string {
	r := history.Rules{Bound: bound}
	for why, list := range map[history.Reason][]stall{history.Stall: l.stalls, history.Outage: l.outages} {
		for _, s := range list {
			r.Excuses = append(r.Excuses, history.Excuse{Reason: why, From: s.from, To: s.to})
		}
	}
	if split != nil {
		r.Excuses = append(r.Excuses, history.Excuse{Reason: history.Split, From: split.from, To: split.to})
	}
	ops := l.plain()
	return history.Lines(append(r.Answers(ops, slack), history.Check(r, ops)...))
}

// plain returns the load's history as package history has it.
func (l *load) plain() []history.Op {
	ops := make([]history.Op, len(l.history))
	for i := range l.history {
		ops[i] = l.history[i].plain()
	}
	return ops
}

// summary counts the operations of a history.
func summary(list []history.Op) string {
	var counts [history.Flush + 1][history.Outcomes]int
	for i := range list {
		counts[list[i].Kind][list[i].Outcome]++
	}
	var b strings.Builder
	for k, n := range counts {
		for o, n := range n {
			if n > 0 {
				fmt.Fprintf(&b, "%d of %v %v, ", n, kind(k), outcome(o))
			}
		}
	}
	return b.String()
}
