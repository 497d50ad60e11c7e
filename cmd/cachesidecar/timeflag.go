package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/internal/settings"
)

// timeFlag is a flag for a time. It differs from the library's flag in the forms that it
// takes: those of settings.Time, such as 7d.
type timeFlag struct{ cli.DurationFlag }

// newTimeFlag returns a flag with a default.
func newTimeFlag(name, usage string, def time.Duration) *timeFlag {
	return &timeFlag{cli.DurationFlag{Name: name, Usage: usage, Value: def, DefaultText: settings.TimeText(def)}}
}

// Apply adds the flag to a set. The value comes from the environment, if it is there.
func (f *timeFlag) Apply(set *flag.FlagSet) error {
	value := timeValue(f.Value)
	f.HasBeenSet = false
	for _, name := range f.EnvVars {
		text, ok := os.LookupEnv(name)
		if !ok || text == "" {
			continue
		}
		if err := value.Set(text); err != nil { // in the words of the library: see badEnv
			return fmt.Errorf("could not parse %q as duration value from environment variable %q for flag %s: %w",
				text, name, f.Name, err)
		}
		f.HasBeenSet = true
		break
	}
	for _, name := range f.Names() {
		set.Var(&value, name, f.Usage)
	}
	return nil
}

// timeValue is a time that text sets. Its String is what cli.Context.Duration reads.
type timeValue time.Duration

func (v *timeValue) String() string { return time.Duration(*v).String() }

func (v *timeValue) Set(text string) error {
	d, err := settings.Time(text)
	if err == nil {
		*v = timeValue(d)
	}
	return err
}
