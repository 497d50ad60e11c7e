package faults

import (
	"fmt"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/verify"
)

// The kinds and outcomes of requests. Package verify judges them. One goroutine writes a key
// at a time, so a key's writes are in the order of their numbers.
type (
	kind    = verify.Kind
	outcome = verify.Outcome
)

const (
	get   = verify.Read
	set   = verify.Set
	del   = verify.Delete
	flush = verify.Flush

	done        = verify.Done
	absent      = verify.Absent
	degraded    = verify.Degraded
	unavailable = verify.Unavailable
	busy        = verify.Busy
	unknown     = verify.Unknown
	silent      = verify.Silent
	failed      = verify.Failed
	old         = verify.Old
	odd         = verify.Odd
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

// plain returns the request as package verify has it.
func (o *op) plain() verify.Op {
	p := verify.Op{
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
	r := verify.Rules{Bound: bound}
	for why, list := range map[verify.Reason][]stall{verify.Stall: l.stalls, verify.Outage: l.outages} {
		for _, s := range list {
			r.Excuses = append(r.Excuses, verify.Excuse{Reason: why, From: s.from, To: s.to})
		}
	}
	if split != nil {
		r.Excuses = append(r.Excuses, verify.Excuse{Reason: verify.Split, From: split.from, To: split.to})
	}
	ops := l.plain()
	return verify.Lines(append(r.Answers(ops, slack), verify.Check(r, ops)...))
}

// plain returns the load's history as package verify has it.
func (l *load) plain() []verify.Op {
	ops := make([]verify.Op, len(l.history))
	for i := range l.history {
		ops[i] = l.history[i].plain()
	}
	return ops
}

// summary counts the operations of a history.
func summary(list []verify.Op) string {
	var counts [verify.Flush + 1][verify.Outcomes]int
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
