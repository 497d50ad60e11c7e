package main

import (
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
