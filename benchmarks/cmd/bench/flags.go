package main

import (
	"flag"
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// flags are the flags of one subcommand.
type flags struct {
	*flag.FlagSet
	what string
	dir  string
	// least is the lowest valid value of each number.
	least map[string]int
}

func newFlags(p *program, what string) *flags {
	f := &flags{FlagSet: flag.NewFlagSet("bench "+what, flag.ContinueOnError), what: what, least: map[string]int{}}
	f.SetOutput(p.log)
	f.StringVar(&f.dir, "dir", ".", "the `folder` of the benchmarks, with rounds, plots and RESULTS.md")
	return f
}

// count defines a flag for a whole number of at least least.
func (f *flags) count(to *int, name string, usual, least int, usage string) {
	f.IntVar(to, name, usual, usage)
	f.least[name] = least
}

// rounds defines how often each side is measured.
func (f *flags) rounds(to *int) {
	f.count(to, "rounds", 5, 1, "how often each side is measured")
}

// data defines the number and the sizes of keys and values.
func (f *flags) data(to *record.Data, keys int) {
	f.count(&to.Keys, "entries", keys, 1000, "how many keys there are")
	f.count(&to.KeySize, "key-size", 16, 16, "of keys, in bytes")
	f.count(&to.ValueSize, "value-size", 100, 1, "of values, in bytes")
}

// turns defines how the sides of a round take turns.
func (f *flags) turns(to *record.Turns, usual int) {
	f.rounds(&to.Rounds)
	f.count(&to.Turns, "turns", usual, 1, "each side's in a round")
	f.count(&to.TurnMS, "turn", 100, 1, "the length of a turn, in ms")
	f.count(&to.WarmUpMS, "warm-up", 10, 0, "load before each turn, in ms")
}

func (f *flags) parse(args []string) error {
	if err := f.Parse(args); err != nil {
		return flag.ErrHelp // already printed
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%s: %q is no flag: leave it out", f.what, f.Arg(0))
	}
	var err error
	f.Visit(func(v *flag.Flag) {
		if n, ok := v.Value.(flag.Getter).Get().(int); ok && n < f.least[v.Name] {
			err = fmt.Errorf("%s -%s %d: give at least %d", f.what, v.Name, n, f.least[v.Name])
		}
	})
	return err
}

// line returns a command line that repeats the measurement elsewhere. It leaves folders
// out.
func (f *flags) line() string {
	line := "go run ./cmd/bench " + f.what
	f.Visit(func(v *flag.Flag) {
		switch v.Name {
		case "dir":
		case "traces":
			line += " -traces DIR"
		default:
			line += " -" + v.Name
			if on, ok := v.Value.(flag.Getter).Get().(bool); !ok {
				line += " " + v.Value.String()
			} else if !on {
				line += "=false"
			}
		}
	})
	return line
}

// head describes a measurement that is about to begin.
func (f *flags) head() record.Head {
	return record.Head{
		What: f.what, Command: f.line(), Commit: record.Commit(), Date: time.Now().UTC().Truncate(time.Second),
		Machine: record.ThisMachine(), Versions: record.Libraries(),
	}
}
