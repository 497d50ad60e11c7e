package main

import (
	"embed"
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

// completions are the scripts of the shells. A script runs "cachesidecar complete SHELL"
// with the words of the command line up to the cursor.
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
		Action: counted(1, 1, func(c *cli.Context) error {
			shell := c.Args().First()
			script, err := completions.ReadFile("completion/cachesidecar." + shell)
			if err != nil {
				return usagef("completion %q: give bash, zsh or fish", shell)
			}
			_, err = p.out.Write(script)
			return err
		}),
	}
}

// completeCommand is for the scripts. It is hidden.
func completeCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:            "complete",
		Usage:           "print what may stand at the end of a command line",
		ArgsUsage:       "bash|zsh|fish WORD…",
		Hidden:          true,
		SkipFlagParsing: true,
		Action: counted(1, -1, func(c *cli.Context) error {
			if c.Args().First() != "bash" {
				return writeCandidates(p.out, candidates(c.App, c.Args().Tail()), "", true)
			}
			words, cut := joined(c.Args().Tail())
			return writeCandidates(p.out, candidates(c.App, words), cut, false)
		}),
	}
}

// writeCandidates writes a line for each candidate: its word and, behind a tab, what it
// means. It leaves out the beginning cut. The line ":files" stands for all names of files.
func writeCandidates(out io.Writer, list []candidate, cut string, meanings bool) error {
	w := errWriter{out: out}
	for _, c := range list {
		if c.meaning != "" && meanings {
			w.printf("%s\t%s\n", c.word, c.meaning)
			continue
		}
		w.printf("%s\n", strings.TrimPrefix(c.word, cut))
	}
	return w.err
}
