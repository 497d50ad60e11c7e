package main

import (
	"strings"

	"github.com/urfave/cli/v2"
)

// reorder moves a command's flags before its arguments, since cli stops looking
// for flags at the first argument. "--" ends the flags; a lone "-" and negative
// numbers are arguments.
func reorder(app *cli.App, args []string) []string {
	if len(args) == 0 {
		return args
	}
	out, rest := args[:1:1], args[1:]
	// Down to the command that the arguments belong to.
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
		out = append(out, a)
		if !strings.Contains(a, "=") && takesValue(flags, strings.TrimLeft(a, "-")) && i+1 < len(rest) {
			i++
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
