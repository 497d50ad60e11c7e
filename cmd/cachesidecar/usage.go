package main

import (
	"regexp"
	"strconv"

	"github.com/urfave/cli/v2"
)

// The parser's errors, in the words of the packages flag and cli. Tests check each of
// them.
var (
	unknownFlag  = regexp.MustCompile(`^flag provided but not defined: -(.*)$`)
	missingValue = regexp.MustCompile(`^flag needs an argument: -(.*)$`)
	badValue     = regexp.MustCompile(`(?s)^invalid (?:boolean )?value "(.*)" for (?:flag )?-([a-z0-9-]+): `)
	badEnv       = regexp.MustCompile(`(?s)^could not parse "(.*)" as .* value from environment variable "([A-Z0-9_]+)" for flag ([a-z0-9-]+): `)
)

// onUsageError rewrites the parser's errors: the flag, its value and what to give
// instead.
func onUsageError(c *cli.Context, err error, isSubcommand bool) error {
	msg := err.Error()
	if m := unknownFlag.FindStringSubmatch(msg); m != nil {
		if !isSubcommand {
			return usagef("--%s before a command: flags stand behind it, as in \"cachesidecar get KEY --json\"", m[1])
		}
		return usagef("%s has no flag --%s: see \"%s --help\"; -- ends the flags", c.Command.Name, m[1], c.Command.HelpName)
	}
	if m := missingValue.FindStringSubmatch(msg); m != nil {
		return usagef("--%s: give %s after it", m[1], wanted(c, m[1]))
	}
	if m := badValue.FindStringSubmatch(msg); m != nil {
		return usagef("--%s %q: give %s", m[2], unquote(m[1]), wanted(c, m[2]))
	}
	if m := badEnv.FindStringSubmatch(msg); m != nil {
		return usagef("$%s %q: give %s", m[2], unquote(m[1]), wanted(c, m[3]))
	}
	return usagef("%s", msg)
}

// unquote removes the inner quotes of a value that is quoted twice.
func unquote(s string) string {
	if u, err := strconv.Unquote(`"` + s + `"`); err == nil {
		return u
	}
	return s
}

// wanted describes the kind of value that a flag takes.
func wanted(c *cli.Context, name string) string {
	for _, f := range c.Command.Flags {
		if f.Names()[0] != name {
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
