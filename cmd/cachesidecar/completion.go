package main

import (
	"embed"
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

// completions are the scripts of bash and zsh. They run the words of the command line up to the cursor with
// cli's --generate-bash-completion, which prints what may come next. The script of fish is cli's own.
//
//go:embed completion
var completions embed.FS

func completionCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print a script that completes command lines in a shell",
		ArgsUsage: "bash|zsh|fish",
		Description: "For this shell alone:\n" +
			"    bash: source <(cachesidecar completion bash)\n" +
			"    zsh:  source <(cachesidecar completion zsh)\n" +
			"    fish: cachesidecar completion fish | source",
		Action: withArgs(1, 1, func(c *cli.Context) error {
			shell := c.Args().First()
			script, err := completions.ReadFile("completion/cachesidecar." + shell)
			if shell == "fish" {
				var text string
				text, err = c.App.ToFishCompletion()
				script = []byte(strings.ReplaceAll(text, "`", "")) // around what a flag's value is
			}
			if err != nil {
				return usagef("completion %q: give bash, zsh or fish", shell)
			}
			_, err = p.out.Write(script)
			return err
		}),
	}
}

// manCommand is for makers of packages. It is hidden.
func manCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:        "man",
		Usage:       "print the manual page",
		Description: "To read it: cachesidecar man | man -l -",
		Hidden:      true,
		Action: withArgs(0, 0, func(c *cli.Context) error {
			describe(c.App.Commands, c.App.Name)
			page, err := c.App.ToManWithSection(1)
			if err == nil {
				_, err = io.WriteString(p.out, page)
			}
			return err
		}),
	}
}

// describe gives commands the texts that cli leaves out of a manual page: arguments and descriptions.
func describe(commands []*cli.Command, within string) {
	for _, c := range commands {
		name := within + " " + c.Name
		c.UsageText = strings.TrimSpace(name+" [FLAGS] "+c.ArgsUsage) + "\n\n" + c.Description
		describe(c.Subcommands, name)
	}
}
