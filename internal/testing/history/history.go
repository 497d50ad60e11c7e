package history

import (
	"fmt"
	"slices"
	"time"
)

// Kind is the kind of an operation.
type Kind uint8

// The kinds.
const (
	Read   Kind = iota
	Set         // to a number that no other Set of the key uses
	Delete      // done also if there was no value; of a counter, also a start at zero
	Touch       // gives the value another TTL
	Incr        // by one; an absent counter becomes Initial
	Flush       // deletes all keys
)

var kinds = []string{"read", "set", "delete", "touch", "incr", "flush"}

func (k Kind) String() string { return kinds[k] }

// Outcome is what the app was told.
type Outcome uint8

// The outcomes.
const (
	Done        Outcome = iota
	Absent              // there is no such key
	Degraded            // a miss, because the owner could not be asked
	Unavailable         // certainly not executed
	Busy                // certainly not executed
	NotStored           // certainly not executed: a condition did not hold
	Unknown             // timed out: may be executed once, then or later
	Silent              // the same, without any answer from the sidecar
	Failed              // the origin has failed
	Old                 // a stale value that the read accepts: no rule applies to it
	Odd                 // anything else, which is a defect
	Outcomes            // how many there are
)

var outcomes = []string{
	"done", "absent", "degraded", "unavailable", "busy", "not stored", "unknown", "silent", "failed", "old", "odd",
}

func (o Outcome) String() string { return outcomes[o] }

// Op is an operation on one key. Times count from any moment that the whole history shares.
type Op struct {
	Kind    Kind    `json:"op"`
	Outcome Outcome `json:"outcome,omitempty"`
	Key     string  `json:"key,omitempty"`
	// Host is what sees its own writes at once: the process that was asked, or a client.
	// Empty: one that no other operation asked.
	Host   string        `json:"host,omitempty"`
	Number int64         `json:"number,omitempty"` // the value; of an Incr, the total
	Began  time.Duration `json:"began"`
	Ended  time.Duration `json:"ended,omitempty"`

	Fresh bool          `json:"fresh,omitempty"` // of a Read: sees what was acknowledged before it began
	All   bool          `json:"all,omitempty"`   // of a change: acknowledged by all hosts
	TTL   time.Duration `json:"ttl,omitempty"`   // of a Set or Touch; zero: no rule about the value's end
	// Initial is what an Incr makes of an absent counter; zero: 1.
	Initial int64 `json:"initial,omitempty"`
	// Origin says that values are loaded, and that the origin has this one until it has the
	// next one. A Delete, a Flush and the TTL end only values that the origin has no longer.
	// Committed is when the origin surely had the value; zero: not known.
	Origin    bool          `json:"origin,omitempty"`
	Committed time.Duration `json:"committed,omitempty"`

	Timeout time.Duration `json:"timeout,omitempty"` // in which an answer must come; zero: no rule
	Gone    bool          `json:"gone,omitempty"`    // the process ended or was paused meanwhile
	Note    string        `json:"note,omitempty"`    // for people
}

// Acked reports whether a change was acknowledged.
func (o *Op) Acked() bool { return o.Outcome == Done || o.Outcome == Absent && o.Kind == Delete }

// Refused reports whether a change was certainly not executed.
func (o *Op) Refused() bool {
	switch o.Outcome {
	case Unavailable, Busy, NotStored:
		return true
	case Absent:
		return o.Kind != Delete
	}
	return false
}

// unknown reports whether it is not known if, and when, a change is executed.
func (o *Op) unknown() bool { return !o.Acked() && !o.Refused() }

func (o *Op) String() string {
	s := fmt.Sprintf("%v of %s, number %d, through %s, %.6f s to %.6f s: %v",
		o.Kind, o.Key, o.Number, o.Host, o.Began.Seconds(), o.Ended.Seconds(), o.Outcome)
	if o.Note != "" {
		s += " " + o.Note
	}
	return s
}

// Rules are what holds for a history.
type Rules struct {
	// Bound is for how long another host may read a value that was ended.
	Bound time.Duration `json:"bound"`
	// Slack is for the clocks. It is added to each time that the rules name.
	Slack time.Duration `json:"slack,omitempty"`
	// Late is how long after its begin a change may be executed, whatever its outcome; zero:
	// for ever.
	Late time.Duration `json:"late,omitempty"`
	// Load is the longest time from a load's look into the origin until its value is stored.
	Load time.Duration `json:"load,omitempty"`
	// Lossless says that only a Delete starts a counter again: nothing is lost, or an Incr of
	// an absent counter is refused.
	Lossless bool `json:"lossless,omitempty"`

	Excuses []Excuse `json:"-"`
}

// Reason is why a rule does not hold for a while.
type Reason uint8

// The reasons.
const (
	Split  Reason = iota // two sides are separate clusters: only one's own writes are seen at once
	Stall                // the machine ran no process, the test included
	Outage               // the origin is down
)

var reasons = []string{"split", "stall", "outage"}

func (r Reason) String() string { return reasons[r] }

// Excuse is a time in which a rule does not hold.
type Excuse struct {
	Reason Reason        `json:"excuse"`
	From   time.Duration `json:"from"`
	To     time.Duration `json:"to"` // the first moment after it
}

// excused reports whether a moment is in an excuse.
func (r *Rules) excused(why Reason, at time.Duration) bool {
	return slices.ContainsFunc(r.Excuses, func(e Excuse) bool { return e.Reason == why && at >= e.From && at < e.To })
}

// Stalled returns for how long the machine stood still between two times.
func (r *Rules) Stalled(from, to time.Duration) (d time.Duration) {
	for _, e := range r.Excuses {
		if e.Reason == Stall {
			d += max(0, min(to, e.To)-max(from, e.From))
		}
	}
	return d
}

// Rule is a rule that an answer breaks, as people read it.
type Rule string

// The rules of values. A change ends a value if it began after the value had surely been
// stored. A change that was read counts from then on as one that took effect. A change of
// unknown outcome may take effect late, but once.
const (
	// Unwritten: every value was written by a change that had begun.
	Unwritten Rule = "a value that no app has written"
	// ReadRefused: and that was not refused.
	ReadRefused Rule = "the value of a refused write"
	// Own: no read returns a value after its host has acknowledged what ended it.
	Own Rule = "read your writes"
	// AckAll: nor through any host, if all hosts have acknowledged that.
	AckAll Rule = "acknowledged by all"
	// Newest: nor if the owner is asked for a fresh value.
	Newest Rule = "fresh"
	// Bound: nor through any host, more than Rules.Bound after it.
	Bound Rule = "the bound"
	// Expired: nor after its TTL.
	Expired Rule = "expired"
	// Twice: a history names each value of a key once.
	Twice Rule = "two writes of one number"
)

// Verdict is the judgement of an operation.
type Verdict struct {
	Rule  Rule // the one that is broken; empty: none
	Op    Op
	By    *Op           // what had ended the value, or has written it
	Stale time.Duration // how long ago, at least, the value had been ended when a Read began
}

func (v Verdict) String() string {
	if v.Rule == "" {
		return ""
	}
	s := fmt.Sprintf("%s: %v", v.Rule, &v.Op)
	switch {
	case v.By == nil:
		return s
	case v.Stale > 0 && v.Rule != Expired:
		return fmt.Sprintf("%s; the value had ended %v before, by: %v", s, v.Stale, v.By)
	}
	return fmt.Sprintf("%s; see: %v", s, v.By)
}

// Lines describes verdicts: the first five of each rule, and how many more there are.
func Lines(verdicts []Verdict) (lines []string) {
	var order []Rule
	of := map[Rule][]string{}
	for _, v := range verdicts {
		if of[v.Rule] == nil {
			order = append(order, v.Rule)
		}
		of[v.Rule] = append(of[v.Rule], v.String())
	}
	for _, rule := range order {
		list := of[rule]
		lines = append(lines, list[:min(5, len(list))]...)
		if more := len(list) - 5; more > 0 {
			lines = append(lines, fmt.Sprintf("... and %d more of: %s", more, rule))
		}
	}
	return lines
}
