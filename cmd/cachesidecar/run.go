package main

import (
	"errors"
	"fmt"
	"log"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	redislog "github.com/redis/go-redis/v9/logging"
	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// Defaults of run.
const (
	defaultHTTP = "127.0.0.1:7948"
	defaultBind = "127.0.0.1:7946" // the sidecar's own default, for help
)

// envName returns the environment variable of a flag.
func envName(flag string) string {
	return "CACHESIDECAR_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// env returns the environment variables of a flag. An empty variable counts as not set;
// otherwise cli would let it override the file.
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
			&cli.StringFlag{Name: "admin-group", Usage: "the `GROUP` that administers the sidecar through the socket, beside root and its own user", EnvVars: env("admin-group")},
			&cli.StringFlag{Name: "l1-size", Usage: "`BYTES` for copies of what other hosts own", DefaultText: "64MiB", EnvVars: env("l1-size")},
			&cli.StringFlag{Name: "l2-size", Usage: "`BYTES` for this host's share of the keys", DefaultText: "256MiB", EnvVars: env("l2-size")},
			&cli.StringFlag{Name: "max-value", Usage: "the longest value, in `BYTES`", DefaultText: "8MiB, or l2-size/16", EnvVars: env("max-value")},
			&cli.StringFlag{Name: "buffer-size", Usage: "`BYTES` for requests and answers under way", DefaultText: "128MiB, or four times the longest request", EnvVars: env("buffer-size")},
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
			&cli.StringFlag{Name: "cluster-key-file", Usage: "encrypt what passes between hosts with the keys in `FILE`, the same one on all hosts (see \"key generate\")", EnvVars: env("cluster-key-file")},
			&cli.StringFlag{Name: "tls-cert", Usage: "show other hosts the certificate in `FILE` (PEM), which names --node, in place of one that comes of the cluster key", EnvVars: env("tls-cert")},
			&cli.StringFlag{Name: "tls-key", Usage: "its private key's `FILE`", EnvVars: env("tls-key")},
			&cli.StringFlag{Name: "tls-ca", Usage: "accept other hosts whose certificates an authority in `FILE` has signed", EnvVars: env("tls-ca")},
			&cli.BoolFlag{Name: "insecure", Usage: "let addresses be other than loopback without --cluster-key-file, though nothing between hosts is encrypted", DisableDefaultText: true, EnvVars: env("insecure")},
			&cli.BoolFlag{Name: "adaptive-weight", Usage: "lower the weight while this host is under pressure", DisableDefaultText: true, EnvVars: env("adaptive-weight")},
			&cli.UintFlag{Name: "weight", Usage: "this host's part of the keys, a `NUMBER` relative to others'", DefaultText: "l2-size in MiB", EnvVars: env("weight")},
			&cli.DurationFlag{Name: "max-staleness", Usage: "how far behind a copy may be, a `TIME` that is the same on all hosts", DefaultText: "2s", EnvVars: env("max-staleness")},
			&cli.DurationFlag{Name: "max-clock-skew", Usage: "how far another host's clock may differ, a `TIME`", DefaultText: "500ms", EnvVars: env("max-clock-skew")},
			&cli.StringFlag{Name: "http", Usage: "serve health and metrics on `HOST:PORT`, or \"off\"", DefaultText: defaultHTTP, EnvVars: env("http")},
			&cli.StringSliceFlag{Name: "http-hosts", Usage: "`NAME,…` that --http may be asked under, beside this host's own, localhost and IP addresses", EnvVars: env("http-hosts")},
			&cli.StringFlag{Name: "http-token-file", Usage: "a file `PATH` with the token that metrics and profiles need", DefaultText: "none", EnvVars: env("http-token-file")},
			&cli.BoolFlag{Name: "pprof", Usage: "serve /debug/pprof on --http too", DisableDefaultText: true, EnvVars: env("pprof")},
			&cli.BoolFlag{Name: "ignore-memory-limit", Usage: "start even where the sizes exceed the machine's memory", DisableDefaultText: true, EnvVars: env("ignore-memory-limit")},
			&cli.StringFlag{Name: "log-format", Usage: "log as `FORMAT`, text or json", DefaultText: "text on a terminal", EnvVars: env("log-format")},
			&cli.StringFlag{Name: "log-level", Usage: "log from `LEVEL` on: debug, info, warn or error", DefaultText: "info", EnvVars: env("log-level")},
		},
		Action: counted(0, 0, p.serve),
	}
}

// runConfig merges the file, the environment and the flags.
func runConfig(c *cli.Context) (fileConfig, error) {
	var cfg fileConfig
	if path := c.String("config"); path != "" {
		var err error
		if cfg, err = loadConfig(path); err != nil {
			return cfg, usagef("%v", err)
		}
	}
	texts := map[string]*string{
		"node": &cfg.Node, "socket": &cfg.Socket, "socket-group": &cfg.SocketGroup, "admin-group": &cfg.AdminGroup, "http": &cfg.HTTP, "http-token-file": &cfg.HTTPTokenFile,
		"bind": &cfg.Bind, "peer-bind": &cfg.PeerBind, "advertise": &cfg.Advertise, "cluster": &cfg.Cluster,
		"cluster-key-file": &cfg.ClusterKeyFile, "tls-cert": &cfg.TLS.Cert, "tls-key": &cfg.TLS.Key, "tls-ca": &cfg.TLS.CA,
		"partition-policy": &cfg.PartitionPolicy,
		"log-format":       &cfg.LogFormat, "log-level": &cfg.LogLevel,
	}
	for name, field := range texts {
		if c.IsSet(name) {
			*field = c.String(name)
		}
	}
	parsed := map[string]interface{ Set(string) error }{
		"socket-mode": &cfg.SocketMode, "l1-size": &cfg.L1Size, "l2-size": &cfg.L2Size, "max-value": &cfg.MaxValue, "buffer-size": &cfg.BufferSize,
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
	take(c, "http-hosts", &cfg.HTTPHosts, c.StringSlice)
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

// take sets a field if its flag or environment variable is given.
func take[T any](c *cli.Context, name string, field *T, value func(string) T) {
	if c.IsSet(name) {
		*field = value(name)
	}
}

// logEnd is how long the process waits at its end for stderr to accept the last lines.
const logEnd = time.Second

// startLog sends all output of the process to stderr through the log, which never blocks.
// A closed stderr must not end the process either. SIGPIPE is caught, not ignored, since
// the commands of origins would inherit an ignored signal.
func (p *program) startLog(o logs.Options) {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	p.log = logs.Start(p.err, o)
	p.err = p.log
	log.SetFlags(0) // of libraries
	log.SetOutput(logs.Text(p.log.Logger(), slog.LevelWarn, "a library says"))
}

func (p *program) serve(c *cli.Context) error {
	moreProcessors()
	cfg, err := runConfig(c)
	if err != nil {
		return err
	}
	terminal := isTerminal(p.err)
	options, err := cfg.logOptions(terminal)
	if err != nil {
		return usagef("%v", err)
	}
	p.startLog(options)
	cfg.Log = p.log.Logger()
	if err := cfg.Check(); err != nil {
		return usagef("%v", err)
	}
	// The library of a Redis origin writes a line to stderr for each failed dial. The
	// origin returns the same as an error, and only the log may write to stderr.
	redislog.Disable()
	s, err := sidecar.New(cfg.Config)
	if err != nil {
		return err
	}
	collectSeldom(s.HeapLimit())
	defer reloadOn(p.hangup, s.Reload, cfg.Log)()
	done := make(chan error, 1)
	go func() { done <- s.Run(c.Context) }() // ends with the context; serve waits for it
	select {
	case err := <-done:
		return err
	case <-s.Ready():
	}
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		cfg.Log.Warn("cannot tell systemd that the sidecar is ready", "error", err)
	}
	if terminal {
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

// moreProcessors gives Go's scheduler two more processors than the machine has, unless
// $GOMAXPROCS is set. The scheduler polls the network only if it has nothing else to run.
// While all processors are busy with some connections, other connections would wait for
// the runtime's monitor, 10 ms. The operating system shares out the real processors.
var moreProcessors = sync.OnceFunc(func() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 2)
	}
})

// collectSeldom makes Go's collector run when the heap is three times the memory in use,
// not twice, up to a limit in bytes, unless $GOGC or $GOMEMLIMIT is set. A collection
// uses all idle processors, and requests wait meanwhile.
func collectSeldom(limit int64) {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit)
		debug.SetGCPercent(200)
	}
}

// reloadOn reloads keys and certificates on each signal, until stop is called.
func reloadOn(hangup <-chan os.Signal, reload func() error, log *slog.Logger) (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() { // ends when end is closed
		defer close(ended)
		for {
			select {
			case <-end:
				return
			case <-hangup:
			}
			log.Info("SIGHUP: the cluster key's and the certificates' files are read again; all other settings stay until a restart")
			if err := reload(); err != nil {
				log.Error("keys and certificates are not taken: this host goes on with what it had", "error", err)
			}
		}
	}()
	return func() { close(end); <-ended }
}
