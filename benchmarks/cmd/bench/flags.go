package main

import (
	"flag"
	"fmt"
	"reflect"
	"slices"
	"strconv"
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

// parameters defines a flag for each parameter that has a default, and for those that also names.
func (f *flags) parameters(to *record.Parameters, also ...string) {
	v := reflect.ValueOf(to).Elem()
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag
		name, usage := tag.Get("flag"), tag.Get("usage")
		if name == "" || v.Field(i).IsZero() && !slices.Contains(also, name) {
			continue
		}
		switch p := v.Field(i).Addr().Interface().(type) {
		case *int:
			f.IntVar(p, name, *p, usage)
			f.least[name], _ = strconv.Atoi(tag.Get("least"))
		case *string:
			f.StringVar(p, name, *p, usage)
		case *bool:
			f.BoolVar(p, name, *p, usage)
		}
	}
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
