package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/internal/settings"
)

// boolFlag returns a flag that has no value.
func boolFlag(name, usage string, aliases ...string) *cli.BoolFlag {
	return &cli.BoolFlag{Name: name, Aliases: aliases, Usage: usage, DisableDefaultText: true}
}

// fileFlag returns a flag for the path of a file.
func fileFlag(name, usage string) *cli.StringFlag {
	return &cli.StringFlag{Name: name, Usage: usage, TakesFile: true}
}

// numberFlag returns a flag for a number from least to most.
func numberFlag(name, usage string, def, least, most int) *cli.IntFlag {
	return &cli.IntFlag{Name: name, Usage: usage, Value: def, Action: func(_ *cli.Context, n int) error {
		if n < least || n > most {
			return usagef("--%s %d: give %d to %d", name, n, least, most)
		}
		return nil
	}}
}

// year is the most that flags for a time take.
const year = 365 * 24 * time.Hour

// timeFlag returns a flag for a time from least to most. cli's own flag takes no days.
func timeFlag(name, usage string, def, least, most time.Duration) *cli.GenericFlag {
	f := &cli.GenericFlag{Name: name, Usage: usage, Value: &timeValue{def, least, most}}
	if def > 0 {
		f.DefaultText = settings.TimeText(def)
	}
	return f
}

// timeValue is a time that text sets, within bounds if most is not zero.
type timeValue struct{ is, least, most time.Duration }

// String is what cli.Context.Duration reads. The help shows no default of zero.
func (v *timeValue) String() string {
	if v.is == 0 {
		return ""
	}
	return v.is.String()
}

func (v *timeValue) Set(text string) error {
	d, err := settings.Time(text)
	if err == nil && v.most > 0 && (d < v.least || d > v.most) {
		err = fmt.Errorf("give %s to %s", settings.TimeText(v.least), settings.TimeText(v.most))
	}
	if err == nil {
		v.is = d
	}
	return err
}
