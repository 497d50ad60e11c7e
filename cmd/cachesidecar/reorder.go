package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// reorder moves a command's flags before its arguments, since cli stops looking for flags
// at the first argument. "--" ends the flags. A lone "-" and negative numbers are
// arguments. With --help the arguments are dropped.
func reorder(app *cli.App, args []string) []string {
	if len(args) == 0 {
		return args
	}
	out, rest := args[:1:1], args[1:]
	switch {
	case len(rest) > 0 && !isFlag(rest[0]) && find(app.Commands, rest[0]) == nil && !isHelp(rest[0]):
		return args // so that cli reports an unknown command
	case len(rest) > 1 && isHelp(rest[0]) && find(app.Commands, rest[1]) != nil:
		rest = append(slices.Clone(rest[1:]), "--help") // cli's own omits subcommands
	}
	// Go down to the command that the arguments belong to.
	flags, commands := app.Flags, app.Commands
	for len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		c := find(commands, rest[0])
		if c == nil {
			break
		}
		out = append(out, rest[0])
		rest = rest[1:]
		flags, commands = c.Flags, c.Subcommands
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
		if !strings.Contains(a, "=") && takesValue(flags, strings.TrimLeft(a, "-")) {
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

func find(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
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
		for _, n := range f.Names() {
			if n == name {
				_, isBool := f.(*cli.BoolFlag)
				return !isBool
			}
		}
	}
	return false
}
