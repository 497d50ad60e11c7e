package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// help writes what a command is for and how it is used.
func (c *Context) help(program bool) error {
	var b strings.Builder
	cmd := c.Command
	fmt.Fprintf(&b, "NAME:\n   %s - %s\n\nUSAGE:\n   ", c.Path, cmd.Usage)
	title := "OPTIONS"
	if program {
		title = "GLOBAL OPTIONS"
		fmt.Fprintf(&b, "%s [global options] command [command options]", c.Path)
	} else {
		b.WriteString(strings.TrimSpace(c.Path + " [command options] " + cmd.ArgsUsage))
	}
	if cmd.Description != "" {
		fmt.Fprintf(&b, "\n\nDESCRIPTION:\n   %s", strings.ReplaceAll(cmd.Description, "\n", "\n   "))
	}
	if cmd.Subcommands != nil {
		b.WriteString("\n\nCOMMANDS:")
		commands(&b, cmd.Subcommands)
	}
	fmt.Fprintf(&b, "\n\n%s:\n", title)
	w := tabwriter.NewWriter(&b, 1, 8, 2, ' ', 0)
	for _, f := range append(cmd.Flags[:len(cmd.Flags):len(cmd.Flags)], helpFlag) {
		fmt.Fprintf(w, "   %s\n", line(f))
	}
	_ = w.Flush() // a Builder takes everything
	_, err := io.WriteString(c.out, b.String())
	return err
}

var helpFlag = &BoolFlag{Name: "help", Aliases: []string{"h"}, Usage: "show help", DisableDefaultText: true}

// commands writes a list of commands. "help" is the last one.
func commands(b *strings.Builder, list []*Command) {
	const help = "help, h"
	width := len(help)
	for _, c := range list {
		width = max(width, len(c.Name))
	}
	for _, c := range list {
		fmt.Fprintf(b, "\n   %-*s  %s", width, c.Name, c.Usage)
	}
	fmt.Fprintf(b, "\n   %-*s  %s", width, help, "Shows a list of commands or help for one command")
}

// line describes a flag: its names, a tab, and what it is for.
func line(f Flag) string {
	usage, what := f.About(), ""
	before, rest, _ := strings.Cut(usage, "`")
	if name, after, ok := strings.Cut(rest, "`"); ok {
		usage, what = before+name+after, name
	}
	if _, isBool := f.(*BoolFlag); isBool {
		what = ""
	} else if what == "" {
		what = "value"
	}
	var names []string
	for _, name := range f.Names() {
		dashes := "--"
		if len(name) == 1 {
			dashes = "-"
		}
		names = append(names, strings.TrimSpace(dashes+name+" "+what))
	}
	all := strings.Join(names, ", ")
	if _, isList := f.(*StringSliceFlag); isList {
		all += " [ " + all + " ]"
	}
	if s := f.defaultText(); s != "" {
		usage += " (default: " + s + ")"
	}
	if vars := f.Variables(); len(vars) > 0 {
		usage += " [$" + strings.Join(vars, ", $") + "]"
	}
	return all + "\t" + usage
}
