package main

import (
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

func runCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:  "run",
		Usage: "run the sidecar",
		Description: "Settings come from flags, else from $CACHESIDECAR_… (CACHESIDECAR_L2_SIZE for --l2-size), " +
			"else from the file.",
		Flags: append(runFlags(), &cli.BoolFlag{
			Name: "cold", Usage: "start without the entries that --keep-memory has kept", DisableDefaultText: true,
			EnvVars: env("cold"),
		}),
		Action: counted(0, 0, p.serve),
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
	varyProcessors()
	cfg, err := runConfig(c)
	var found problems
	if err != nil && !errors.As(err, &found) {
		return err
	}
	terminal := isTerminal(p.err)
	options, _ := cfg.logOptions(terminal) // check returns the error
	p.startLog(options)
	cfg.Log = p.log.Logger()
	for _, m := range unknownVariables(os.Environ(), cfg.sources.root) {
		cfg.Log.Warn(m)
	}
	if wrong := cfg.check(found); len(wrong) > 0 {
		return &usageError{wrong.Error(), wrong}
	}
	r := &reloader{read: func() (fileConfig, error) { return runConfig(c) }, log: p.log, terminal: terminal, was: cfg}
	cfg.Reload, cfg.Cold = r.reload, c.Bool("cold")
	s, err := sidecar.New(cfg.Config)
	if err != nil {
		return err
	}
	r.s = s
	collectSeldom(s.HeapLimit())
	defer r.on(p.hangup)()
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
	asleep := watchdog(s.SocketPath(), cfg.Log)
	defer asleep()
	if terminal {
		fmt.Fprintf(p.err, "Serving %s. Try: cachesidecar set greeting hello && cachesidecar get greeting\n",
			s.SocketPath())
	}
	select {
	case err = <-done:
		done <- err
	case <-s.Ending():
	}
	asleep() // a socket that systemd keeps takes connections, and nothing answers
	select {
	case <-s.Ending(): // it may have ended at once
		_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
	default:
	}
	err = <-done
	if errors.Is(err, c.Context.Err()) {
		return nil
	}
	return err
}

// varyProcessors lets the number of Go's processors vary with the load, unless $GOMAXPROCS is set.
func varyProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		server.VaryProcessors()
	}
}

// collectSeldom makes Go's collector run when the heap is three times the memory in use,
// not twice, up to a limit in bytes, unless $GOGC or $GOMEMLIMIT is set. A collection
// uses all idle processors, and requests wait meanwhile.
func collectSeldom(limit int64) {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit)
		debug.SetGCPercent(200)
	}
}
