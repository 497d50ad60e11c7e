package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"

	"github.com/cachesidecar/cachesidecar/sidecar"
)

// fileConfig is what a configuration file may say: the sidecar's own settings,
// and the log's.
type fileConfig struct {
	sidecar.Config `yaml:",inline"`
	LogFormat      string `yaml:"log_format"`
	LogLevel       string `yaml:"log_level"`
}

// maxConfig bounds a configuration file, in bytes.
const maxConfig = 1 << 20

// parseConfig reads YAML. An unknown key is an error that names its line.
func parseConfig(b []byte) (cfg fileConfig, err error) {
	if len(b) > maxConfig {
		return cfg, fmt.Errorf("the file has more than %d bytes", maxConfig)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&cfg); err != nil && !errors.Is(err, io.EOF) {
		return cfg, readable(err)
	}
	if err := d.Decode(&struct{}{}); !errors.Is(err, io.EOF) {
		return cfg, errors.New("the file has more than one document: leave out \"---\"")
	}
	return cfg, nil
}

// readable takes the Go types out of the parser's messages.
func readable(err error) error {
	var te *yaml.TypeError
	if !errors.As(err, &te) {
		return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	lines := make([]string, len(te.Errors))
	for i, l := range te.Errors {
		l = strings.ReplaceAll(l, " not found in type main.fileConfig", " is unknown")
		l = strings.ReplaceAll(l, " not found in type sidecar.Namespace", " is unknown in a namespace")
		l = strings.ReplaceAll(l, "cannot unmarshal !!", "cannot take the ")
		l = strings.ReplaceAll(l, " into time.Duration", " for a time: give one such as 30s or 2h")
		lines[i] = l
	}
	return errors.New(strings.Join(lines, "; "))
}

func loadConfig(path string) (fileConfig, error) {
	f, err := os.Open(path)
	if err != nil {
		return fileConfig{}, fmt.Errorf("config: %w", err)
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
	o := &slog.HandlerOptions{Level: level}
	switch {
	case c.LogFormat == "text", c.LogFormat == "" && isTerminal(w):
		return slog.New(slog.NewTextHandler(w, o)), nil
	case c.LogFormat == "json", c.LogFormat == "":
		return slog.New(slog.NewJSONHandler(w, o)), nil
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
