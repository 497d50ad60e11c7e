package main

import (
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

func (p *program) runCommand() *cli.Command {
	return &cli.Command{
		Name:  "run",
		Usage: "run the sidecar",
		Description: "Settings come from flags, else from $CACHESIDECAR_… (CACHESIDECAR_L2_SIZE for --l2-size), " +
			"else from the file.",
		Flags:  runFlags(),
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
		fmt.Fprintf(p.err, "Serving %s. Try: cachesidecar set greeting hello && cachesidecar get greeting\n",
			s.SocketPath())
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
			log.Info("SIGHUP: the cluster key's and the certificates' files are read again; " +
				"all other settings stay until a restart")
			if err := reload(); err != nil {
				log.Error("keys and certificates are refused: this host continues with those that it had", "error", err)
			}
		}
	}()
	return func() { close(end); <-ended }
}
