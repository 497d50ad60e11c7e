package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// reorder moves a command's flags before its arguments, since cli stops looking for flags
// at the first argument:
//
//	get KEY --json      → get --json -- KEY
//	incr KEY -5 --ns n  → incr --ns n -- KEY -5
//	help stats          → stats --help
//
// "--" ends the flags. A lone "-" and negative numbers are arguments. With --help the arguments are dropped, and
// cli's own "help COMMAND" omits subcommands.
func reorder(app *cli.App, args []string) []string {
	if len(args) == 0 {
		return args
	}
	out, rest, at, help := descend(app, args)
	unknown := len(rest) > 0 && len(at.Subcommands) > 0 && !isFlag(rest[0])
	switch {
	case help && unknown:
		return append(out, rest[0])
	case help:
		return append(out, "--help")
	case unknown && len(out) == 1:
		return args // so that cli reports it, and not its flags
	}
	var words []string
	for i := 0; i < len(rest); i++ {
		a := rest[i]
		if a == "--" {
			words = append(words, rest[i+1:]...)
			break
		}
		if !isFlag(a) {
			words = append(words, a)
			continue
		}
		if isHelp(a) {
			return append(out, a) // cli would treat the arguments as topics
		}
		out = append(out, a)
		if !strings.Contains(a, "=") && takesValue(at.Flags, strings.TrimLeft(a, "-")) {
			if i++; i == len(rest) {
				return out // "--" would be taken as the missing value
			}
			out = append(out, rest[i])
		}
	}
	if len(words) == 0 {
		return out
	}
	return append(append(out, "--"), words...)
}

// descend follows the names of commands. It returns what it has passed, the rest, the command at which that begins,
// and whether one of the words asked for help.
func descend(app *cli.App, args []string) (out, rest []string, at *cli.Command, help bool) {
	out, rest, at = args[:1:1], args[1:], &cli.Command{Flags: app.Flags, Subcommands: app.Commands}
	for ; len(rest) > 0 && len(at.Subcommands) > 0; rest = rest[1:] {
		if c := at.Command(rest[0]); c != nil {
			out, at = append(out, rest[0]), c
		} else if isHelp(rest[0]) {
			help = true
		} else {
			break
		}
	}
	return out, rest, at, help
}

func isFlag(a string) bool {
	return len(a) > 1 && a[0] == '-' && (a[1] < '0' || a[1] > '9') && a[1] != '.'
}

func isHelp(a string) bool {
	name := strings.TrimLeft(a, "-")
	return name == "help" || name == "h"
}

func takesValue(flags []cli.Flag, name string) bool {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f.(cli.DocGenerationFlag).TakesValue()
		}
	}
	return false
}
