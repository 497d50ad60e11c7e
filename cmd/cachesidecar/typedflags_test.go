package main

import (
	"bytes"
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/internal/configfile"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// configOf builds a configuration as run does, and stops there.
func configOf(t *testing.T, args ...string) (cfg configfile.File, err error) {
	t.Helper()
	var out bytes.Buffer
	app := (&program{in: strings.NewReader(""), out: &out, err: &out}).app()
	app.Command("run").Action = func(c *cli.Context) (err error) {
		cfg, err = runConfig(c)
		return cmp.Or(err, cfg.Wrong.OrNil())
	}
	err = app.RunContext(context.Background(), append([]string{"cachesidecar", "run"}, args...))
	return cfg, err
}

// TestFlagsOfProcess checks that each flag of run has the environment variable of its name, and that a configuration
// has the version of the program.
func TestFlagsOfProcess(t *testing.T) {
	for _, f := range runCommand(&program{}).Flags {
		name := f.Names()[0]
		vars := f.(cli.DocGenerationFlag).GetEnvVars()
		if want := "CACHESIDECAR_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_")); !slices.Equal(vars, []string{want}) {
			t.Errorf("--%s has the environment variables %q, want %q", name, vars, want)
		}
	}
	if cfg, err := configOf(t); err != nil || cfg.Version == "" {
		t.Errorf("version %q, %v", cfg.Version, err)
	}
}

// TestTimesOfDays checks that each way to give a time takes days.
func TestTimesOfDays(t *testing.T) {
	file := filepath.Join(tempDir(t), "c.yaml")
	text := "max_staleness: &d 1d\nnode: *d\nrequest_timeout: *d\nnamespaces: {a: &a {default_ttl: 1d12h}, b: {<<: *a, stale_limit: 0}}\n"
	testenv.Must(t, os.WriteFile(file, []byte(text), 0o600))
	t.Setenv("CACHESIDECAR_MAX_CLOCK_SKEW", "7d")
	cfg, err := configOf(t, "--config", file, "--request-timeout", "1.5d")
	a, b := cfg.Namespaces["a"], cfg.Namespaces["b"]
	if err != nil || cfg.MaxStaleness != 24*time.Hour || cfg.Node != "1d" || cfg.RequestTimeout != 36*time.Hour ||
		cfg.MaxClockSkew != 168*time.Hour || *a.DefaultTTL != 36*time.Hour || *b.DefaultTTL != 36*time.Hour || *b.StaleLimit != 0 {
		t.Errorf("%v, %+v, %+v, %+v", err, cfg, a, b)
	}
	var timeout time.Duration
	app := (&program{}).app()
	app.Command("members").Action = func(c *cli.Context) error {
		timeout = c.Duration("timeout")
		return nil
	}
	if err := app.RunContext(context.Background(), []string{"cachesidecar", "members", "--timeout", "1d"}); err != nil || timeout != 24*time.Hour {
		t.Errorf("%v, %v", timeout, err)
	}
}

// TestOneTimeParser checks that no command has the library's flag for times, which takes
// no days.
func TestOneTimeParser(t *testing.T) {
	for name, c := range allCommands() {
		for _, f := range c.Flags {
			if _, ok := f.(*cli.DurationFlag); ok {
				t.Errorf("%s --%s: make it with timeFlag", name, f.Names()[0])
			}
		}
	}
}
