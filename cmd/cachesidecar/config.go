package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/internal/configfile"
	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/internal/table"
)

// switchUser changes root's process to another user, with that user's groups, permanently.
func switchUser(uid int) error {
	gid, groups := uid, []int(nil)
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		if gid, err = strconv.Atoi(u.Gid); err != nil {
			return err
		}
		ids, err := u.GroupIds()
		if err != nil {
			return err
		}
		for _, id := range ids {
			n, err := strconv.Atoi(id)
			if err != nil {
				return err
			}
			groups = append(groups, n)
		}
	}
	if err := errors.Join(syscall.Setgroups(groups), syscall.Setgid(gid), syscall.Setuid(uid)); err != nil {
		return fmt.Errorf("become uid %d: %w", uid, err)
	}
	return nil
}

func configCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "look at a configuration",
		Subcommands: []*cli.Command{{
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
			Action: withArgs(1, 1, p.check),
		}, {
			Name:  "show",
			Usage: "print the settings that \"run\" would have, and where each comes from",
			Description: "Takes the flags and the environment of \"run\". It asks no sidecar. The output is a " +
				"configuration file. Its last line is how much memory the process needs. Exit status 1 if something " +
				"is wrong.",
			Flags:  append(configfile.Flags(), boolFlag("changed", "leave out what has its default"), jsonFlag),
			Action: withArgs(0, 0, p.showConfig),
		}},
	}
}

// checkConfig reads a configuration file, and returns all that is wrong with it, as this
// process's user sees it. The error is of type configfile.Problems, if the file can be read.
func checkConfig(path string) (configfile.File, error) {
	cfg, err := configfile.Load(path)
	if err == nil {
		err = cfg.FindProblems().OrNil()
	}
	return cfg, err
}

func (p *program) check(c *cli.Context) error {
	path := c.Args().First()
	cfg, err := checkConfig(path)
	var foreign settings.Foreign
	if errors.As(err, &foreign) && os.Geteuid() == 0 {
		if err := switchUser(foreign.UID); err != nil {
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
	var wrong configfile.Problems
	if err != nil && !(errors.As(err, &wrong) && c.Bool("json")) {
		return err
	}
	err = p.show(c, append(configfile.Problems{}, wrong...), "ok\n")
	if err == nil && wrong != nil {
		return errStatus1
	}
	return err
}

// askOrigins asks all origins, and prints a line for each one that answers, unless --json
// is given. The error lists those that do not.
func (p *program) askOrigins(c *cli.Context, cfg *configfile.File) error {
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	answers, err := cfg.AskOrigins(ctx)
	if err != nil {
		return err
	}
	feeds, err := cfg.AskFeeds(ctx)
	if err = cmp.Or(c.Context.Err(), err); err != nil {
		return err
	}
	var wrong configfile.Problems
	var good table.Rows
	for _, a := range answers {
		if a.Unasked && a.Err == nil {
			good.AddRow(a.Namespace, a.Kind, "not asked: its key_pattern lets no key pass that can be invented")
			continue
		}
		if a.Err == nil {
			good.AddRow(a.Namespace, a.Kind, "ok", a.Took.Round(10*time.Microsecond))
			continue
		}
		text := a.Err.Error()
		if errors.Is(a.Err, context.DeadlineExceeded) {
			text = "no answer within the timeout: " + text
		}
		wrong = append(wrong, cfg.ProblemWith("namespaces."+a.Namespace+".origin."+a.Kind, text))
	}
	for _, a := range feeds {
		if a.Err == nil {
			good.AddRow("changes "+a.Feed, a.Kind, "ok")
		}
		for _, err := range settings.Each(a.Err) {
			wrong = append(wrong, cfg.ProblemWith("changes."+a.Feed+"."+a.Kind, err.Error()))
		}
		for _, w := range a.Warnings {
			fmt.Fprintf(p.err, "changes %s: %s\n", logs.Plain(a.Feed), logs.Plain(w))
		}
	}
	wrong.Sort()
	if c.Bool("json") {
		return wrong.OrNil()
	}
	_, err = fmt.Fprint(p.out, good)
	return errors.Join(err, wrong.OrNil())
}

func (p *program) showConfig(c *cli.Context) error {
	cfg, err := runConfig(c)
	if err != nil {
		return err
	}
	p.warnUnknown(&cfg)
	list, err := cfg.ListSettings(isTerminal(os.Stderr))
	if c.Bool("changed") {
		list = slices.DeleteFunc(list, func(s configfile.ShownSetting) bool { return s.Source == "default" })
	}
	need, _ := cfg.Memory() // what is wrong is in the list
	text := configfile.YAML(list) + fmt.Sprintf("# Such a process needs %d MiB of memory at most: MemoryMax=, or a "+
		"container's limit.\n", (need+1<<20-1)>>20)
	if err := p.show(c, list, text); err != nil {
		return err
	}
	return cfg.JoinProblems(err).OrNil()
}
