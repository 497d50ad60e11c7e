package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/plainfile"
)

func loadConfig(path string) (fileConfig, error) {
	b, err := plainfile.Read(path, maxConfig)
	if err != nil {
		return fileConfig{}, fmt.Errorf("config %s: %w: give the path of a file of settings that this process may read",
			path, err)
	}
	cfg, err := parseConfig(b)
	if err != nil {
		return cfg, fmt.Errorf("config %s: %w", path, err)
	}
	return cfg, nil
}

// logOptions returns the options of the log. Default: text on a terminal, JSON elsewhere.
func (c fileConfig) logOptions(terminal bool) (o logs.Options, err error) {
	if c.LogLevel != "" {
		if err := o.Level.UnmarshalText([]byte(c.LogLevel)); err != nil {
			return o, fmt.Errorf("log_level %q: give debug, info, warn or error", c.LogLevel)
		}
	}
	switch c.LogFormat {
	case "", "text", "json":
		o.Text = c.LogFormat == "text" || c.LogFormat == "" && terminal
		return o, nil
	}
	return o, fmt.Errorf("log_format %q: give text or json", c.LogFormat)
}

// checkConfig returns what is wrong with a configuration file, as this process's user
// sees it.
func checkConfig(path string) error {
	cfg, err := loadConfig(path)
	if err != nil {
		return err
	}
	if _, err = cfg.logOptions(false); err == nil {
		err = cfg.Check()
	}
	if err != nil {
		return fmt.Errorf("config %s: %w", path, err)
	}
	return nil
}

// takeOn changes root's process to another user, with that user's groups, permanently.
func takeOn(uid int) error {
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

func (p *program) configCommand() *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "look at a configuration",
		Subcommands: []*cli.Command{{
			Name:      "check",
			Usage:     "say whether a configuration file is right",
			ArgsUsage: "FILE",
			Description: "Prints \"ok\", or what is wrong and where. Exit status 1 if the file is not right. " +
				"Run by root it checks as the user whose files with secrets the configuration names.",
			Action: counted(1, 1, p.check),
		}},
	}
}

func (p *program) check(c *cli.Context) error {
	path := c.Args().First()
	err := checkConfig(path)
	var foreign plainfile.Foreign
	if errors.As(err, &foreign) && os.Geteuid() == 0 {
		if err := takeOn(foreign.UID); err != nil {
			return err
		}
		fmt.Fprintf(p.err, "Checked as uid %d, to which a file with a secret belongs: run the sidecar as that user.\n",
			foreign.UID)
		err = checkConfig(path)
	}
	if err == nil {
		_, err = fmt.Fprintln(p.out, "ok")
	}
	return err
}
