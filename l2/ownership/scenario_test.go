package ownership

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

var update = flag.Bool("update", false, "write what happens into the scenarios, instead of comparing it")

// A scenario is a script in testdata. A line with ">>" after its time is an event that
// the script causes; every other line with a time is what the machines do because of it.
// Comments and empty lines may stand before an event. The machines must do exactly what
// the script says, at the time it says, and nothing else.
//
// The nodes are a, b, c and so on, with six partitions. B is 1 s, the detection time
// 1.5 s. A message takes 1 ms. Polls and gossip are not in the script. The events:
//
//	policy consistent, voters a b c    the first event; without it: policy available
//	settled a b c                      these nodes have started at 0, and all is settled
//	start a b                          nodes start, and look for others
//	start a alone                      a node starts that knows that there is no other
//	start b with its clock set back    its process seems earlier than the one before
//	start a second b                   on another host, under the same name
//	crash b                            b is gone without a word
//	pause b, resume b                  b does not run in between
//	cut a | b c                        no message passes between the two groups
//	heal                               all messages pass again
//	block b, unblock b                 polls and requests do not reach b; gossip does
//	leave b                            b gives its partitions away
//	stop b                             b says goodbye to all
//	weigh b 3                          b offers more memory: weight 3
//	owners                             tells which nodes serve which partitions
//	end                                the last event
type scenario struct {
	*testing.T
	s   *sim
	at  time.Duration // of the event
	out strings.Builder
}

func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			script, err := os.ReadFile(file)
			testenv.Must(t, err)
			got := play(t, string(script))
			switch {
			case *update:
				testenv.Must(t, os.WriteFile(file, []byte(got), 0o644))
			case got != string(script):
				t.Errorf("%s: %s", file, firstDifference(string(script), got))
			}
		})
	}
}

// play carries out a script's events, and returns the script with what has happened.
func play(t *testing.T, script string) string {
	sc := &scenario{T: t, s: newSim(t, 1, 5)}
	sc.s.plain, sc.s.partitions = true, 6
	sc.s.narrator = newNarrator(sc.line)
	sc.s.narrator.brief = true
	for _, n := range sc.s.nodes {
		n.rate = 0
	}
	comments := "" // before the next event
	for _, line := range strings.Split(strings.TrimSuffix(script, "\n"), "\n") {
		at, do, event := strings.Cut(line, " >> ")
		switch seconds, err := strconv.ParseFloat(strings.TrimSpace(at), 64); {
		case event && err == nil:
			sc.at = time.Hour + time.Duration(seconds*float64(time.Second))
			words := strings.Fields(strings.ReplaceAll(do, ",", ""))
			if words[0] != "settled" {
				sc.s.until(sc.at)
			}
			fmt.Fprintf(&sc.out, "%s%8.3f >> %s\n", comments, seconds, do)
			comments = ""
			sc.event(words)
		case line == "" || line[0] == '#':
			comments += line + "\n"
		case event:
			t.Fatalf("%q has no time", line)
		}
	}
	return sc.out.String() + comments
}

// line writes what happens now.
func (sc *scenario) line(what string) {
	fmt.Fprintf(&sc.out, "%8.3f %s\n", (sc.s.now - time.Hour).Seconds(), what)
}

// event carries out an event.
func (sc *scenario) event(words []string) {
	switch verb, args := words[0], words[1:]; verb {
	case "policy":
		for _, v := range args[2:] {
			sc.s.voters = append(sc.s.voters, kv.NodeID(v))
		}
	case "start":
		sc.start(args)
	case "settled":
		sc.settled(args)
	case "cut":
		sc.cut(args)
	case "heal":
		clear(sc.s.cut)
	case "owners":
		sc.owners()
	case "end":
	default:
		n := sc.named(args[0])
		switch verb {
		case "crash":
			n.crash()
		case "pause":
			n.pause()
		case "resume":
			n.resume()
		case "block":
			n.blocked = true
		case "unblock":
			n.blocked = false
		case "leave":
			n.run(n.epoch, func() { n.m.Leave(n.now()) })
		case "stop":
			sc.stop(n)
		case "weigh":
			weight, _ := strconv.Atoi(args[1])
			n.run(n.epoch, func() { n.m.SetWeight(n.now(), uint32(weight)) })
		default:
			sc.Fatalf("unknown event %q", strings.Join(words, " "))
		}
	}
}

// named returns the node of a name; b.2 is the second one of two with the name b.
func (sc *scenario) named(name string) *simNode {
	node, second, _ := strings.Cut(name, ".")
	if second != "" {
		return sc.s.nodes[len(sc.s.nodes)-1]
	}
	return sc.s.nodes[node[0]-'a']
}

// settled starts nodes, and does not tell how they come together.
func (sc *scenario) settled(names []string) {
	say := sc.s.narrator.say
	sc.s.narrator.say = func(string) {}
	sc.start(names)
	sc.s.until(sc.at)
	sc.s.narrator.say = say
	testenv.Must(sc, sc.s.settled())
	sc.owners()
}

func (sc *scenario) start(args []string) {
	switch what := strings.Join(args[1:], " "); {
	case what == "alone":
		sc.named(args[0]).start(true)
	case what == "with its clock set back":
		n := sc.named(args[0])
		n.epoch -= 2
		n.start(false)
	case strings.HasPrefix(what, "second "):
		// It takes the place of the last node, which no script has started.
		n := sc.s.nodes[len(sc.s.nodes)-1]
		sc.s.split = true // see the script
		n.node, n.epoch = kv.NodeID(args[2]), 1
		n.start(false)
	default:
		for _, name := range args {
			sc.named(name).start(false)
		}
	}
}

// cut separates two groups. Under policy available both sides may go on, if that lasts.
func (sc *scenario) cut(args []string) {
	sc.s.split = sc.s.voters == nil
	left, right, _ := strings.Cut(strings.Join(args, " "), " | ")
	for _, a := range strings.Fields(left) {
		for _, b := range strings.Fields(right) {
			i, j := sc.named(a).at, sc.named(b).at
			sc.s.cut[[2]int{i, j}], sc.s.cut[[2]int{j, i}] = true, true
		}
	}
}

func (sc *scenario) stop(n *simNode) {
	n.run(n.epoch, func() { n.m.Stop(n.now()) })
	n.crash()
	for _, o := range sc.s.nodes {
		if o != n && o.running {
			o.run(o.epoch, func() { o.m.Left(o.now(), n.id) })
		}
	}
}

// owners tells which nodes serve each partition.
func (sc *scenario) owners() {
	var words []string
	for p := range uint16(sc.s.partitions) {
		var by []string
		for _, n := range sc.s.nodes {
			if n.running && !n.slept && n.m.serves(p) && n.m.parts[p].until > n.now() {
				by = append(by, n.name())
			}
		}
		if len(by) == 0 {
			by = []string{"none"}
		}
		words = append(words, fmt.Sprintf("%d: %s", p, strings.Join(by, " and ")))
	}
	sc.line("owners  " + strings.Join(words, "   "))
}

// firstDifference returns the first line in which two texts differ, with its number.
func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		a, b := "the end", "the end"
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			return fmt.Sprintf("line %d is\n%s\nand this has happened:\n%s", i+1, a, b)
		}
	}
	return "no difference"
}
