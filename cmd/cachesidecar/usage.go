package main

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/xrash/smetrics"

	"github.com/cachesidecar/cachesidecar/internal/cli"
)

// counted returns an action that checks the number of arguments first. A negative most
// means no upper limit.
func counted(least, most int, act cli.ActionFunc) cli.ActionFunc {
	return func(c *cli.Context) error {
		wrong := "few"
		switch n := c.NArg(); {
		case n > most && most >= 0:
			wrong = "many"
		case n >= least:
			return act(c)
		}
		use := strings.TrimSpace(c.Path + " " + c.Command.ArgsUsage)
		return usagef("%s: %d arguments are too %s; it is used so: %s", c.Command.Name, c.NArg(), wrong, use)
	}
}

// nearest returns the name that a misspelt word is probably meant to be: the one at the
// least edit distance, which is at most a third of the word's length. It returns "" if
// there is none.
func nearest(word string, names []string) (best string) {
	least := math.MaxInt
	for _, name := range names {
		d := smetrics.WagnerFischer(name, word, 1, 1, 1)
		if d < least && d <= max(len(word)/3, 1) && d < len(name) {
			best, least = name, d
		}
	}
	return best
}

func flagNames(flags []cli.Flag) (names []string) {
	for _, f := range flags {
		names = append(names, f.Names()...)
	}
	return names
}

// explainUsage rewrites the parser's errors: the flag, its value and what to give instead.
func explainUsage(err error) error {
	var e *cli.Error
	if !errors.As(err, &e) {
		return err
	}
	within := strings.TrimSpace(strings.TrimPrefix(e.Path, "cachesidecar"))
	switch e.Problem {
	case cli.NoCommand:
		return noCommand(e, within)
	case cli.UnknownFlag:
		if within == "" {
			return usagef("--%s before a command: flags stand behind it, as in \"cachesidecar get KEY --json\"", e.Name)
		}
		see := ": see"
		if near := nearest(e.Name, flagNames(e.Command.Flags)); near != "" {
			see = fmt.Sprintf(": did you mean --%s? See", near)
		}
		return usagef("%s has no flag --%s%s \"%s --help\"; -- ends the flags", e.Command.Name, e.Name, see, e.Path)
	case cli.NoValue:
		return usagef("--%s: give %s after it", e.Name, wanted(e))
	case cli.BadValue:
		return usagef("--%s %q: give %s", e.Name, e.Value, wanted(e))
	case cli.BadVariable:
		return usagef("$%s %q: give %s", e.Variable, e.Value, wanted(e))
	}
	return usagef("%s", e)
}

// noCommand returns the error for a command that is not given, or that does not exist.
// within is the command whose subcommands are meant, if any.
func noCommand(e *cli.Error, within string) error {
	help := strings.TrimSpace("cachesidecar help " + within)
	if !e.Given {
		if within == "" {
			return usagef("no command given")
		}
		return usagef("%s: no command given: see %q", within, help)
	}
	var names []string
	for _, c := range e.Command.Subcommands {
		names = append(names, c.Name)
	}
	see := ": see"
	if near := nearest(e.Name, names); near != "" {
		see = fmt.Sprintf(": did you mean %q? See", near)
	}
	return usagef("there is no command %q%s %q", strings.TrimSpace(within+" "+e.Name), see, help)
}

// wanted describes the kind of value that a flag takes.
func wanted(e *cli.Error) string {
	for _, f := range e.Command.Flags {
		if f.Names()[0] != e.Name {
			continue
		}
		switch f.(type) {
		case *cli.DurationFlag:
			return "a time such as 500ms, 10s or 2h"
		case *cli.BoolFlag:
			return "true or false"
		case *cli.IntFlag, *cli.Float64Flag:
			return "a number"
		case *cli.UintFlag, *cli.Uint64Flag:
			return "a number from 0"
		}
	}
	return "a value"
}
