package main

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/plainfile"
	"github.com/cachesidecar/cachesidecar/internal/settings"
)

// loadConfig reads a file. What is wrong with its settings is an error of type problems,
// and counts as left out in cfg.
func loadConfig(path string) (fileConfig, error) {
	b, err := plainfile.Read(path, maxConfig)
	if err != nil {
		return fileConfig{}, fmt.Errorf("config %s: %w: give the path of a file of settings that this process may read",
			path, err)
	}
	cfg, err := parseConfig(b)
	cfg.sources.file = path
	var found problems
	if errors.As(err, &found) {
		for i := range found {
			found[i].File = path
		}
	}
	return cfg, err
}

// logOptions returns the options of the log. Default: text on a terminal, JSON elsewhere.
// What is wrong counts as left out; the error joins it.
func (c fileConfig) logOptions(terminal bool) (o logs.Options, err error) {
	var wrong settings.Problems
	if c.LogLevel != "" && o.Level.UnmarshalText([]byte(c.LogLevel)) != nil {
		wrong.Addf("log_level %q: give debug, info, warn or error", c.LogLevel)
	}
	switch c.LogFormat {
	case "text":
		o.Text = true
	case "json":
	default:
		wrong.Addf("log_format %q: give text or json", c.LogFormat)
		fallthrough
	case "":
		o.Text = terminal
	}
	return o, wrong.Err()
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

func configCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:        "config",
		Usage:       "look at a configuration",
		Subcommands: []*cli.Command{configCheckCommand(p), configShowCommand(p)},
	}
}
