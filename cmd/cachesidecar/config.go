package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/urfave/cli/v2"
)

func loadConfig(path string) (fileConfig, error) {
	f, err := os.Open(path)
	if err != nil {
		return fileConfig{}, fmt.Errorf("config %s: %w", path, errors.Unwrap(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return fileConfig{}, fmt.Errorf("config %s: %w", path, err)
	}
	cfg, err := parseConfig(b)
	if err != nil {
		return cfg, fmt.Errorf("config %s: %w", path, err)
	}
	return cfg, nil
}

// logger builds the log: text on a terminal, JSON elsewhere, unless told.
func (c fileConfig) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if c.LogLevel != "" {
		if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
			return nil, fmt.Errorf("log_level %q: give debug, info, warn or error", c.LogLevel)
		}
	}
	switch c.LogFormat {
	case "", "text", "json":
		asText := c.LogFormat == "text" || c.LogFormat == "" && isTerminal(w)
		return slog.New(newLogHandler(w, asText, level)), nil
	}
	return nil, fmt.Errorf("log_format %q: give text or json", c.LogFormat)
}

func (p *program) configCommand() *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "look at a configuration",
		Subcommands: []*cli.Command{{
			Name:        "check",
			Usage:       "say whether a configuration file is right",
			ArgsUsage:   "FILE",
			Description: "Prints \"ok\", or what is wrong and where. Exit status 1 if the file is not right.",
			Action: func(c *cli.Context) error {
				if err := args(c, 1, 1); err != nil {
					return err
				}
				cfg, err := loadConfig(c.Args().First())
				if err != nil {
					return err
				}
				if _, err := cfg.logger(io.Discard); err != nil {
					return fmt.Errorf("config %s: %w", c.Args().First(), err)
				}
				if err := cfg.Check(); err != nil {
					return fmt.Errorf("config %s: %w", c.Args().First(), err)
				}
				_, err = fmt.Fprintln(p.out, "ok")
				return err
			},
		}},
	}
}
