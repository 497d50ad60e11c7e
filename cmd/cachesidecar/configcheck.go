package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/plainfile"
	"github.com/cachesidecar/cachesidecar/internal/settings"
)

func configCheckCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:      "check",
		Usage:     "say whether a configuration file is right",
		ArgsUsage: "FILE",
		Description: "Prints \"ok\", or all that is wrong and where. Exit status 1 if the file is not right. " +
			"Run by root it checks as the user whose files with secrets the configuration names.",
		Flags: []cli.Flag{
			boolFlag("ask-origins", "ask each origin once, too"),
			timeoutFlag("wait this `TIME` for the origins", 10*time.Second),
			jsonFlag,
		},
		Action: counted(1, 1, p.check),
	}
}

// checkConfig reads a configuration file, and returns all that is wrong with it, as this
// process's user sees it. The error is of type problems, if the file can be read.
func checkConfig(path string) (fileConfig, error) {
	cfg, err := loadConfig(path)
	var found problems
	if err != nil && !errors.As(err, &found) {
		return cfg, err
	}
	return cfg, cfg.check(found).orNil()
}

func (p *program) check(c *cli.Context) error {
	path := c.Args().First()
	cfg, err := checkConfig(path)
	var foreign plainfile.Foreign
	if errors.As(err, &foreign) && os.Geteuid() == 0 {
		if err := takeOn(foreign.UID); err != nil {
			return err
		}
		fmt.Fprintf(p.err, "Checked as uid %d, to which a file with a secret belongs: run the sidecar as that user.\n",
			foreign.UID)
		cfg, err = checkConfig(path)
	}
	p.warnUnknown(&cfg)
	if err == nil && c.Bool("ask-origins") {
		err = p.askOrigins(c, &cfg)
	}
	var wrong problems
	switch {
	case c.Bool("json") && (err == nil || errors.As(err, &wrong)):
		if e := p.json(append(problems{}, wrong...)); e != nil {
			return e
		}
		if wrong != nil {
			return errMiss
		}
	case err == nil:
		_, err = fmt.Fprintln(p.out, "ok")
	}
	return err
}

// askOrigins asks all origins, and prints a line for each one that answers, unless --json
// is given. The error lists those that do not.
func (p *program) askOrigins(c *cli.Context, cfg *fileConfig) error {
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	answers, err := cfg.AskOrigins(ctx)
	if err != nil || c.Context.Err() != nil {
		return errors.Join(err, c.Context.Err())
	}
	var wrong problems
	for _, a := range answers {
		if a.Err == nil {
			continue
		}
		text := a.Err.Error()
		if errors.Is(a.Err, context.DeadlineExceeded) {
			text = "no answer within the timeout: " + text
		}
		wrong = append(wrong, cfg.sources.problem("namespaces."+a.Namespace+".origin."+a.Kind,
			fmt.Sprintf("namespace %s: origin.%s: %s", a.Namespace, a.Kind, text)))
	}
	feeds, err := cfg.AskFeeds(ctx)
	if err != nil || c.Context.Err() != nil {
		return errors.Join(err, c.Context.Err())
	}
	for _, a := range feeds {
		for _, err := range settings.Each(a.Err) {
			wrong = append(wrong, cfg.sources.problem("changes."+a.Feed+"."+a.Kind,
				fmt.Sprintf("changes %s: %v", a.Feed, err)))
		}
		for _, w := range a.Warnings {
			fmt.Fprintf(p.err, "changes %s: %s\n", logs.Plain(a.Feed), logs.Plain(w))
		}
	}
	wrong.sort()
	if c.Bool("json") {
		return wrong.orNil()
	}
	var t table
	for _, a := range answers {
		if a.Err == nil {
			t.row(logs.Plain(a.Namespace), a.Kind, "ok", a.Took.Round(10*time.Microsecond))
		}
	}
	for _, a := range feeds {
		if a.Err == nil {
			t.row("changes "+logs.Plain(a.Feed), a.Kind, "ok")
		}
	}
	_, err = fmt.Fprint(p.out, t)
	return errors.Join(err, wrong.orNil())
}
