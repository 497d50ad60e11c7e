package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

// manCommand is for makers of packages. It is hidden.
func manCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:        "man",
		Usage:       "print the manual page",
		Description: "To read it: cachesidecar man | man -l -",
		Hidden:      true,
		Action: counted(0, 0, func(c *cli.Context) error {
			_, err := io.WriteString(p.out, manPage(c.App))
			return err
		}),
	}
}

// page is a manual page in the macros of man(7).
type page struct{ strings.Builder }

// manPage returns the manual page of the command, made from the descriptions of its parts.
func manPage(app *cli.App) string {
	p := &page{}
	p.macro("TH", "CACHESIDECAR", "1", "", "cachesidecar "+buildVersion(), "User Commands")
	p.WriteString(".nh\n.ad l\n") // words of a command line stay whole
	p.macro("SH", "NAME")
	p.text(app.Name + ` \- ` + roff(app.Usage))
	p.macro("SH", "SYNOPSIS")
	p.text(`\fBcachesidecar\fR \fICOMMAND\fR [\fIFLAGS\fR] [\fIARGUMENTS\fR]`)
	p.macro("SH", "DESCRIPTION")
	p.text(roff("One program is both the sidecar (run) and a client of the sidecar on this host (everything else).\n" +
		"Data goes to stdout, everything else to stderr.\n" +
		"Flags stand before or after the arguments; -- ends the flags."))
	p.macro("SH", "COMMANDS")
	for _, c := range app.Commands {
		p.command(c, "")
	}
	p.macro("SH", "EXIT STATUS")
	for _, s := range [][2]string{
		{"0", "Done."},
		{"1", "A key has no value, a condition is not met, or a check failed; also any other failure."},
		{"2", "A wrong command line or setting."},
		{"3", "No sidecar could be reached."},
		{"4", "The sidecar did not answer in time, or not all hosts have acknowledged."},
	} {
		p.item(`\fB`+s[0]+`\fR`, roff(s[1]))
	}
	p.macro("SH", "ENVIRONMENT")
	p.item(`\fBCACHESIDECAR_SOCKET\fR`, roff("The sidecar's socket, if --socket is not given."))
	p.item(`\fB`+envTokenFile+`\fR`, roff("A file with a token, if --token-file is not given."))
	p.text(roff("Each flag of run has a variable too."))
	return p.String()
}

// command writes about a command that does something, and about its subcommands.
func (p *page) command(c *cli.Command, within string) {
	name := within + c.Name
	if len(c.Subcommands) == 0 || len(c.Flags) > 0 {
		p.macro("SS", strings.TrimSpace("cachesidecar "+name+" "+c.ArgsUsage))
		p.text(roff(sentence(c.Usage)))
		if len(c.Aliases) > 0 {
			p.text(roff("Other names: " + strings.Join(c.Aliases, ", ") + "."))
		}
		for _, line := range strings.Split(c.Description, "\n") {
			if code, ok := strings.CutPrefix(line, "    "); ok {
				p.macro("br")
				p.text(`\ \ \ \ ` + roff(code))
			} else if line != "" {
				p.text(roff(line))
			}
		}
		for _, f := range c.Flags {
			p.flag(f)
		}
	}
	for _, sub := range c.Subcommands {
		if sub.Name != "help" {
			p.command(sub, name+" ")
		}
	}
}

// flag writes about a flag: its names, what it takes and does, its default and variable.
func (p *page) flag(f cli.Flag) {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok || f.Names()[0] == "help" {
		return
	}
	var names []string
	for _, n := range f.Names() {
		names = append(names, `\fB`+roff(dashed(n))+`\fR`)
	}
	head, usage := strings.Join(names, ", "), roff(d.GetUsage())
	if d.TakesValue() {
		value := "VALUE"
		if m := placeholder.FindStringSubmatch(d.GetUsage()); m != nil {
			value = m[1]
		}
		head += ` \fI` + roff(value) + `\fR`
	}
	usage = placeholder.ReplaceAllString(sentence(usage), `\fI$1\fR`)
	if def := defaultOf(f); def != "" {
		usage += roff(" Default: " + def + ".")
	}
	if vars := d.GetEnvVars(); len(vars) > 0 {
		usage += roff(" Variable: " + strings.Join(vars, ", ") + ".")
	}
	p.item(head, usage)
}

// defaultOf returns a flag's default as the help tells it.
func defaultOf(f cli.Flag) string {
	d, ok := f.(cli.DocGenerationFlag)
	if b, isBool := f.(*cli.BoolFlag); !ok || isBool && b.DisableDefaultText {
		return ""
	}
	return d.GetDefaultText()
}

// sentence returns a text as a sentence.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
}

// macro writes a line of control.
func (p *page) macro(name string, args ...string) {
	p.WriteString("." + name)
	for _, a := range args {
		fmt.Fprintf(p, ` "%s"`, strings.ReplaceAll(roff(a), `"`, `\(dq`))
	}
	p.WriteByte('\n')
}

// text writes lines of text that is ready for roff.
func (p *page) text(s string) {
	for line := range strings.SplitSeq(s, "\n") {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			line = `\&` + line // otherwise a line of control
		}
		p.WriteString(line + "\n")
	}
}

// item writes a paragraph under a head.
func (p *page) item(head, text string) {
	p.macro("TP")
	p.text(head)
	p.text(text)
}

// roff returns a text that roff shows as it is: a hyphen that can be copied into a shell.
func roff(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", `\&...`, "\u2019", `\(cq`).Replace(s)
}
