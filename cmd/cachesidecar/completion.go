package main

import (
	"embed"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
)

// completions are the scripts of bash and zsh. They run the words of the command line up to the cursor with
// cli's --generate-bash-completion, which prints what may come next. The script of fish is cli's own.
//
//go:embed completion
var completions embed.FS

// asksCompletion reports whether a script asks for completions.
func asksCompletion() bool { return os.Getenv("_CACHESIDECAR_COMPLETES") != "" }

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
