package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/daemon"
	redislog "github.com/redis/go-redis/v9/logging"
	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/sidecar"
)

// What run takes where nothing is given.
const (
	defaultHTTP = "127.0.0.1:7948"
	defaultBind = "127.0.0.1:7946" // the sidecar's own, for help
)

// envName is the environment variable of a flag.
func envName(flag string) string {
	return "CACHESIDECAR_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// env lists the environment variables of a flag. One that is empty counts as
// not set: cli would let it override the file.
func env(flag string) []string {
	if v, ok := os.LookupEnv(envName(flag)); ok && v == "" {
		return nil
	}
	return []string{envName(flag)}
}

func (p *program) runCommand() *cli.Command {
	return &cli.Command{
		Name:        "run",
		Usage:       "run the sidecar",
		Description: "Settings come from flags, else from $CACHESIDECAR_… (CACHESIDECAR_L2_SIZE for --l2-size), else from the file.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Usage: "read settings from `FILE` (YAML)", EnvVars: env("config")},
			&cli.StringFlag{Name: "node", Usage: "this sidecar's `NAME`, unique in the cluster (default: the host name)", EnvVars: env("node")},
			&cli.StringFlag{Name: "socket", Usage: "listen on `PATH` (default: the first folder that can be written of /run/cachesidecar, $XDG_RUNTIME_DIR/cachesidecar, /tmp/cachesidecar-$UID)", EnvVars: env("socket")},
			&cli.StringFlag{Name: "socket-mode", Usage: "the socket's file `MODE`, octal", DefaultText: "0660", EnvVars: env("socket-mode")},
			&cli.StringFlag{Name: "socket-group", Usage: "the socket's `GROUP`", EnvVars: env("socket-group")},
			&cli.StringFlag{Name: "l1-size", Usage: "`BYTES` for copies of what other hosts own", DefaultText: "64MiB", EnvVars: env("l1-size")},
			&cli.StringFlag{Name: "l2-size", Usage: "`BYTES` for this host's share of the keys", DefaultText: "256MiB", EnvVars: env("l2-size")},
			&cli.StringFlag{Name: "max-value", Usage: "the longest value, in `BYTES`", DefaultText: "8MiB, or l2-size/16", EnvVars: env("max-value")},
			&cli.IntFlag{Name: "max-namespaces", Usage: "at most `N` namespaces", DefaultText: "256", EnvVars: env("max-namespaces")},
			&cli.IntFlag{Name: "max-connections", Usage: "at most `N` connections", DefaultText: "16384", EnvVars: env("max-connections")},
			&cli.DurationFlag{Name: "request-timeout", Usage: "`TIME` for requests that bring none", DefaultText: "1s", EnvVars: env("request-timeout")},
			&cli.StringFlag{Name: "bind", Usage: "gossip with other hosts on `HOST:PORT`, or \"off\"", DefaultText: "off, or " + defaultBind + " with --join", EnvVars: env("bind")},
			&cli.StringFlag{Name: "peer-bind", Usage: "serve other hosts on `HOST:PORT`", DefaultText: "bind's host, and the port after its", EnvVars: env("peer-bind")},
			&cli.StringFlag{Name: "advertise", Usage: "the `IP` address that other hosts reach this one under", DefaultText: "bind's", EnvVars: env("advertise")},
			&cli.StringSliceFlag{Name: "join", Usage: "look for other hosts at `HOST:PORT,…`, the same ones on all hosts", EnvVars: env("join")},
			&cli.StringFlag{Name: "cluster", Usage: "the cluster's `NAME`", DefaultText: "cachesidecar", EnvVars: env("cluster")},
			&cli.StringFlag{Name: "partition-policy", Usage: "what a side of a split network does: \"available\" goes on, \"consistent\" serves only with a majority of --voters; `POLICY` is the same on all hosts", DefaultText: "available", EnvVars: env("partition-policy")},
			&cli.StringSliceFlag{Name: "voters", Usage: "the `NAME,…` of 3 or 5 nodes under --partition-policy consistent, the same ones on all hosts", EnvVars: env("voters")},
			&cli.BoolFlag{Name: "insecure", Usage: "let --bind and --peer-bind be other than loopback, though nothing between hosts is encrypted", DisableDefaultText: true, EnvVars: env("insecure")},
			&cli.BoolFlag{Name: "adaptive-weight", Usage: "lower the weight while this host is under pressure", DisableDefaultText: true, EnvVars: env("adaptive-weight")},
			&cli.UintFlag{Name: "weight", Usage: "this host's part of the keys, a `NUMBER` relative to others'", DefaultText: "l2-size in MiB", EnvVars: env("weight")},
			&cli.DurationFlag{Name: "max-staleness", Usage: "how far behind a copy may be, a `TIME` that is the same on all hosts", DefaultText: "2s", EnvVars: env("max-staleness")},
			&cli.DurationFlag{Name: "max-clock-skew", Usage: "how far another host's clock may differ, a `TIME`", DefaultText: "500ms", EnvVars: env("max-clock-skew")},
			&cli.StringFlag{Name: "http", Usage: "serve health and metrics on `HOST:PORT`, or \"off\"", DefaultText: defaultHTTP, EnvVars: env("http")},
			&cli.BoolFlag{Name: "pprof", Usage: "serve /debug/pprof on --http too", DisableDefaultText: true, EnvVars: env("pprof")},
			&cli.BoolFlag{Name: "ignore-memory-limit", Usage: "start even where the sizes exceed the machine's memory", DisableDefaultText: true, EnvVars: env("ignore-memory-limit")},
			&cli.StringFlag{Name: "log-format", Usage: "log as `FORMAT`, text or json", DefaultText: "text on a terminal", EnvVars: env("log-format")},
			&cli.StringFlag{Name: "log-level", Usage: "log from `LEVEL` on: debug, info, warn or error", DefaultText: "info", EnvVars: env("log-level")},
		},
		Action: func(c *cli.Context) error {
			if err := args(c, 0, 0); err != nil {
				return err
			}
			return p.serve(c)
		},
	}
}

// runConfig puts file, environment and flags together.
func runConfig(c *cli.Context) (fileConfig, error) {
	var cfg fileConfig
	if path := c.String("config"); path != "" {
		var err error
		if cfg, err = loadConfig(path); err != nil {
			return cfg, usagef("%v", err)
		}
	}
	texts := map[string]*string{
		"node": &cfg.Node, "socket": &cfg.Socket, "socket-group": &cfg.SocketGroup, "http": &cfg.HTTP,
		"bind": &cfg.Bind, "peer-bind": &cfg.PeerBind, "advertise": &cfg.Advertise, "cluster": &cfg.Cluster, "partition-policy": &cfg.PartitionPolicy,
		"log-format": &cfg.LogFormat, "log-level": &cfg.LogLevel,
	}
	for name, field := range texts {
		if c.IsSet(name) {
			*field = c.String(name)
		}
	}
	parsed := map[string]interface{ Set(string) error }{
		"socket-mode": &cfg.SocketMode, "l1-size": &cfg.L1Size, "l2-size": &cfg.L2Size, "max-value": &cfg.MaxValue,
	}
	for name, field := range parsed {
		if c.IsSet(name) {
			if err := field.Set(c.String(name)); err != nil {
				return cfg, usagef("--%s or $%s: %v", name, envName(name), err)
			}
		}
	}
	take(c, "max-namespaces", &cfg.MaxNamespaces, c.Int)
	take(c, "max-connections", &cfg.MaxConnections, c.Int)
	take(c, "request-timeout", &cfg.RequestTimeout, c.Duration)
	take(c, "join", &cfg.Join, c.StringSlice)
	take(c, "voters", &cfg.Voters, c.StringSlice)
	take(c, "insecure", &cfg.Insecure, c.Bool)
	take(c, "max-staleness", &cfg.MaxStaleness, c.Duration)
	take(c, "max-clock-skew", &cfg.MaxClockSkew, c.Duration)
	take(c, "adaptive-weight", &cfg.AdaptiveWeight, c.Bool)
	take(c, "pprof", &cfg.Pprof, c.Bool)
	take(c, "ignore-memory-limit", &cfg.IgnoreMemoryLimit, c.Bool)
	weight := uint(cfg.Weight)
	if take(c, "weight", &weight, c.Uint); weight > math.MaxUint32 {
		return cfg, usagef("weight %d: give a number below 2^32", weight)
	}
	cfg.Weight = uint32(weight)
	if cfg.HTTP == "" {
		cfg.HTTP = defaultHTTP
	}
	cfg.Version = buildVersion()
	return cfg, nil
}

// take sets a field where its flag or variable is given.
func take[T any](c *cli.Context, name string, field *T, value func(string) T) {
	if c.IsSet(name) {
		*field = value(name)
	}
}

func (p *program) serve(c *cli.Context) error {
	cfg, err := runConfig(c)
	if err != nil {
		return err
	}
	if cfg.Log, err = cfg.logger(p.err); err != nil {
		return usagef("%v", err)
	}
	if err := cfg.Check(); err != nil {
		return usagef("%v", err)
	}
	// A Redis origin's library writes a line to stderr for each failed dial. We
	// have the same as an error, and stderr is the log's.
	redislog.Disable()
	s, err := sidecar.New(cfg.Config)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(c.Context) }() // ends with the context; we wait for it
	select {
	case err := <-done:
		return err
	case <-s.Ready():
	}
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		cfg.Log.Warn("cannot tell systemd that the sidecar is ready", "error", err)
	}
	if isTerminal(p.err) {
		fmt.Fprintf(p.err, "Serving %s. Try: cachesidecar set greeting hello && cachesidecar get greeting\n", s.SocketPath())
	}
	select {
	case err = <-done:
	case <-c.Context.Done():
		_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
		err = <-done
	}
	if errors.Is(err, c.Context.Err()) {
		return nil
	}
	return err
}
