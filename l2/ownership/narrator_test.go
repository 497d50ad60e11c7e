package ownership

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// narrator puts into words what happens in a simulation. It leaves out requests that are
// sent again, and answers that are the same again.
type narrator struct {
	say   func(line string)
	brief bool              // not what the simulation itself does to a node
	last  map[string]string // the last line about each request and about each answer
}

func newNarrator(say func(line string)) *narrator {
	return &narrator{say: say, last: map[string]string{}}
}

func (r *narrator) sayf(format string, args ...any) {
	if r != nil {
		r.say(fmt.Sprintf(format, args...))
	}
}

// fault tells what the simulation does to a node.
func (r *narrator) fault(n *simNode, what string) {
	if r != nil && !r.brief {
		r.say(n.name() + " " + what)
	}
}

// changed says a line unless it was the last one about the same thing.
func (r *narrator) changed(about, line string) {
	if r.last[about] != line {
		r.last[about] = line
		r.say(line)
	}
}

// actions tells what a node does. Requests of one claim are one line.
func (r *narrator) actions(n *simNode, list []Action) {
	if r == nil {
		return
	}
	list = slices.Clone(list)
	sortDeaths(list)
	for i := 0; i < len(list); i++ {
		switch a := list[i].(type) {
		case Send:
			to := []string{processName(a.To)}
			for ; i+1 < len(list); i++ {
				next, ok := list[i+1].(Send)
				if !ok || next.Acquire.Ballot != a.Acquire.Ballot {
					break
				}
				to = append(to, processName(next.To))
			}
			what := fmt.Sprintf("%s (ballot %d)", numbers(a.Acquire.Partitions), a.Acquire.Ballot.Clock)
			others := strings.Join(to, ", ")
			r.changed(fmt.Sprint(n.name(), " asks ", others, a.Acquire.Ballot), fmt.Sprintf("%s asks %s for %s", n.name(), others, what))
		case SendAuth:
			r.changed("auth of "+n.name(), fmt.Sprintf("%s asks the voters to acknowledge %s", n.name(), ownerships(a.Auth.Ownerships)))
		case Begun:
			r.sayf("%s owns %s (ballot %d)%s", n.name(), numbers(a.Partitions), a.Ballot.Clock, releasers(a.Releasers))
		case Ended:
			r.sayf("%s ends its ownership of %s: %s", n.name(), numbers(a.Partitions), a.Why)
		case Retired:
			r.sayf("%s stops serving %s: %s", n.name(), numbers(a.Partitions), a.Why)
		case RingChanged:
			r.sayf("%s's ring: %s", n.name(), processes(n.m.Entered()))
		case StateChanged:
			state := "out"
			if a.In {
				state = "in"
			}
			r.sayf("%s is %s (%s)", n.name(), state, a.Why)
		case Died:
			why := fmt.Sprintf("silent for %v", a.Silence.Round(time.Millisecond))
			if a.Again {
				why = "another process has its name"
			}
			r.sayf("%s considers %s dead: %s", n.name(), processName(a.ID), why)
		}
	}
}

// answer tells how a node answers an ACQUIRE.
func (r *narrator) answer(n *simNode, from kv.Process, q Acquire, a Answer) {
	if r == nil {
		return
	}
	refused, entries := n.m.newSet(), ""
	for i := range q.Partitions.All() {
		if !a.Granted.Has(i) {
			refused.Add(i)
		}
	}
	if !a.Released.Empty() {
		entries = ", with the entries of " + numbers(a.Released)
	}
	line := fmt.Sprintf("%s grants %s %s%s", n.name(), processName(from), numbers(a.Granted), entries)
	switch {
	case a.Granted.Empty():
		line = fmt.Sprintf("%s refuses %s %s", n.name(), processName(from), numbers(refused))
	case !refused.Empty():
		line += ", and refuses " + numbers(refused)
	}
	r.changed(fmt.Sprint(n.name(), " answers ", q.Ballot), line)
}

// acknowledged tells how a node answers an AUTH.
func (r *narrator) acknowledged(n *simNode, from kv.Process, a Auth, sets []kv.PartitionSet) {
	if r == nil {
		return
	}
	line := fmt.Sprintf("%s does not vote yet", n.name())
	if sets != nil {
		var list []Ownership
		for i, set := range sets {
			if !set.Empty() {
				list = append(list, Ownership{a.Ownerships[i].Ballot, set})
			}
		}
		if line = fmt.Sprintf("%s acknowledges %s's %s", n.name(), processName(from), ownerships(list)); len(list) == 0 {
			line = fmt.Sprintf("%s acknowledges nothing of %s's", n.name(), processName(from))
		}
	}
	r.changed(n.name()+" to "+from.String(), line)
}

// sortDeaths sorts deaths that follow each other by name: their order means nothing.
func sortDeaths(list []Action) {
	slices.SortStableFunc(list, func(a, b Action) int {
		x, ok := a.(Died)
		y, both := b.(Died)
		if !ok || !both {
			return 0
		}
		return x.ID.Compare(y.ID)
	})
}

func numbers(set kv.PartitionSet) string {
	return strings.Trim(fmt.Sprint(slices.Collect(set.All())), "[]")
}

func ownerships(list []Ownership) string {
	var words []string
	for _, o := range list {
		words = append(words, fmt.Sprintf("%s (ballot %d)", numbers(o.Partitions), o.Ballot.Clock))
	}
	return strings.Join(words, ", ")
}

func releasers(of map[kv.Process]kv.PartitionSet) string {
	var words []string
	for id, set := range of {
		words = append(words, fmt.Sprintf(", with %s's entries of %s", processName(id), numbers(set)))
	}
	slices.Sort(words)
	return strings.Join(words, "")
}

func processes(list []kv.Process) string {
	if len(list) == 0 {
		return "empty"
	}
	var words []string
	for _, id := range list {
		words = append(words, processName(id))
	}
	return strings.Join(words, ", ")
}

// processName names a process: b is the first one of node b, b.2 the next one.
func processName(id kv.Process) string {
	if run := id.Epoch % 1000; run != 1 {
		return fmt.Sprintf("%s.%d", id.Node, run)
	}
	return string(id.Node)
}
