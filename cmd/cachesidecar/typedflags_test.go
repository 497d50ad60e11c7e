package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
)

// TestTimesOfDays checks that each way to give a time takes days.
func TestTimesOfDays(t *testing.T) {
	file := filepath.Join(tempDir(t), "c.yaml")
	text := "max_staleness: &d 1d\nnode: *d\nrequest_timeout: *d\nnamespaces: {a: &a {default_ttl: 1d12h}, b: {<<: *a, stale_limit: 0}}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
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
