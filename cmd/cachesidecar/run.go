package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/configfile"
	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/sched"
	"github.com/cachesidecar/cachesidecar/internal/table"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

func runCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:  "run",
		Usage: "run the sidecar",
		Description: "Settings come from flags, else from $CACHESIDECAR_… (CACHESIDECAR_L2_SIZE for --l2-size), " +
			"else from the file.",
		Flags: append(configfile.Flags(),
			processFlag(coldFlag, "start without the entries that --keep-memory has kept"),
			processFlag(askOriginsFlag, "start and reload only if all origins and feeds answer, and refuse nothing")),
		Action: withArgs(0, 0, p.serve),
	}
}

// The flags of run that are no settings.
const coldFlag, askOriginsFlag = "cold", "ask-origins"

// processFlag returns a flag that is no setting: it concerns one process.
func processFlag(name, usage string) *cli.BoolFlag {
	return &cli.BoolFlag{Name: name, Usage: usage, DisableDefaultText: true, EnvVars: configfile.EnvVars(name)}
}

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
	if err != nil {
		return err
	}
	terminal := isTerminal(p.err)
	options, _ := cfg.LogOptions(terminal) // check returns the error
	p.startLog(options)
	cfg.Log = p.log.Logger()
	for _, m := range cfg.UnknownVariables(os.Environ(), otherVariables()...) {
		cfg.Log.Warn(m)
	}
	if wrong := cfg.FindProblems(); len(wrong) > 0 {
		return &usageError{wrong.Error(), wrong}
	}
	r := &reloader{read: func() (configfile.File, error) { return runConfig(c) }, log: p.log, terminal: terminal}
	cfg.Reload, cfg.Cold, cfg.StrictOrigins = r.reload, c.Bool(coldFlag), c.Bool(askOriginsFlag)
	s, err := sidecar.New(cfg.Config)
	if err != nil {
		return err
	}
	r.s, r.inEffect = s, cfg
	r.leaveTime.Store(int64(cfg.LeaveTime))
	collectSeldom(s.HeapLimit())
	defer r.reloadOn(p.hangup)()
	done := make(chan error, 1)
	go func() { done <- s.Run(c.Context) }() // ends with the context; serve waits for it
	select {
	case err := <-done:
		return err
	case <-s.Ready():
	}
	if err := tellReady(); err != nil {
		cfg.Log.Warn("cannot tell systemd that the sidecar is ready", "error", err)
	}
	stopWatchdog := watchdog(s.SocketPath(), cfg.Log)
	defer stopWatchdog()
	if terminal {
		fmt.Fprintf(p.err, "Serving %s. Try: cachesidecar set greeting hello && cachesidecar get greeting\n",
			s.SocketPath())
	}
	select {
	case err = <-done:
		done <- err
	case <-s.Ending():
	}
	stopWatchdog()            // a socket that systemd keeps takes connections, and nothing answers
	if isClosed(s.Ending()) { // it may have ended at once
		tellStopping(r.endsWithin())
	}
	err = <-done
	if errors.Is(err, c.Context.Err()) {
		return nil
	}
	return err
}

// runConfig returns the configuration that the command line, the environment and the file give. It may be called any
// number of times, and reads the file each time. The error is that the file cannot be read.
func runConfig(c *cli.Context) (configfile.File, error) {
	cfg, err := configfile.Merge(c)
	if err != nil {
		return cfg, usagef("%v", err)
	}
	cfg.Version = buildVersion()
	return cfg, nil
}

// varyProcessors lets the number of Go's processors vary with the load, unless $GOMAXPROCS is set.
func varyProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		sched.VaryProcessors()
	}
}

// collectSeldom makes Go's collector run when the heap is three times the memory in use, not twice, up to a limit in
// bytes, unless $GOGC or $GOMEMLIMIT is set. A collection uses all idle processors, and requests wait meanwhile.
func collectSeldom(limit int64) {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit)
		debug.SetGCPercent(200)
	}
}

// reloader reads the configuration of run again and puts it into effect, one reload at a time.
type reloader struct {
	read     func() (configfile.File, error) // of the same command line, and of the file as it is now
	s        *sidecar.Sidecar
	log      *logs.Log
	terminal bool

	leaveTime atomic.Int64 // in effect; 0: the default

	mu       sync.Mutex
	inEffect configfile.File // its settings of the log, and those of the start
	level    slog.Level      // of the log
}

// endsWithin returns how long the end may take: 17.5 s beyond leave_time, 10 s more on a voter, and some.
func (r *reloader) endsWithin() time.Duration {
	return cmp.Or(time.Duration(r.leaveTime.Load()), sidecar.DefaultLeaveTime) + 35*time.Second
}

// reloadOn reloads on each signal, until stop is called. Signals that come during a reload make one more.
func (r *reloader) reloadOn(hangup <-chan os.Signal) (stop func()) {
	return background(context.Background(), func(ctx context.Context) {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangup:
			}
			r.log.Logger().Info("SIGHUP: the configuration is read again")
			_, _ = r.reload(ctx) // it has logged the error
		}
	})
}

// reload reads the configuration, puts it into effect, and logs the difference.
func (r *reloader) reload(ctx context.Context) (cachesidecar.Changes, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.serves() {
		tellReloading()
		defer func() {
			if r.serves() {
				_ = tellReady()
			}
		}()
	}
	log := r.log.Logger()
	changes, err := r.apply(ctx)
	if err != nil {
		log.Error("the configuration is refused: this host continues with the one that it had",
			"error", strings.ReplaceAll(err.Error(), "\n", "; "))
		return changes, err
	}
	for i, c := range changes.Changed {
		if i == maxChangeLines {
			log.Info("more settings have changed", "settings", len(changes.Changed)-i)
			break
		}
		log.Info("setting "+c.Setting+" has changed", "from", c.From, "to", c.To)
	}
	for i, c := range changes.Restart {
		if i == maxChangeLines {
			log.Warn("more settings need a restart", "settings", len(changes.Restart)-i)
			break
		}
		log.Warn("setting "+c.Setting+" needs a restart: this host continues with what it has",
			"has", c.From, "wanted", c.To)
	}
	log.Info("the configuration is read", "changed", len(changes.Changed), "need_restart", len(changes.Restart))
	r.log.SetLevel(r.level) // last, so that a higher one does not hide these lines
	return changes, nil
}

// serves reports whether the sidecar has begun to serve, and has not begun to end. Only then
// systemd may be told that it is ready: other units wait for that.
func (r *reloader) serves() bool { return isClosed(r.s.Ready()) && !isClosed(r.s.Ending()) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// maxChangeLines bounds the lines about changes that one reload logs, of each kind.
const maxChangeLines = 64

// apply puts the configuration into effect as it is now.
func (r *reloader) apply(ctx context.Context) (changes cachesidecar.Changes, err error) {
	cfg, err := r.read()
	if err != nil {
		return changes, err
	}
	if wrong := cfg.FindProblems(); len(wrong) > 0 {
		return changes, wrong
	}
	options, err := cfg.LogOptions(r.terminal)
	if err != nil {
		return changes, err
	}
	if changes, err = r.s.Apply(ctx, cfg.Config); err != nil {
		return changes, err
	}
	if is, was := cmp.Or(cfg.LogLevel, "info"), cmp.Or(r.inEffect.LogLevel, "info"); is != was {
		changes.Changed = append(changes.Changed, cachesidecar.Change{Setting: "log_level", From: was, To: is})
	}
	if cfg.LogFormat != r.inEffect.LogFormat {
		changes.Restart = append(changes.Restart, cachesidecar.Change{
			Setting: "log_format", From: cmp.Or(r.inEffect.LogFormat, "default"), To: cmp.Or(cfg.LogFormat, "default"),
		})
	}
	r.leaveTime.Store(int64(cfg.LeaveTime))
	r.inEffect.LogLevel, r.level = cfg.LogLevel, options.Level // the format stays
	collectSeldom(r.s.HeapLimit())
	return changes, nil
}

func reloadCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:  "reload",
		Usage: "make the sidecar read its configuration again",
		Description: "Prints what has changed, and what needs a restart. If anything is wrong, nothing changes,\n" +
			"and the exit status is 1. For administrators of the sidecar, as SIGHUP is.",
		Flags: clientFlags(jsonFlag),
		Action: withArgsAndClient(0, 0, func(ctx context.Context, c *cli.Context, cl *client.Client) error {
			changes, err := cl.Reload(ctx)
			if errors.Is(err, cachesidecar.ErrBadRequest) {
				fmt.Fprintf(p.err, "%s\nNothing has changed.\n", logs.Lines(strings.TrimPrefix(err.Error(),
					cachesidecar.ErrBadRequest.Error()+": ")))
				return errStatus1
			}
			if err != nil {
				return err
			}
			changes.Changed = append([]cachesidecar.Change{}, changes.Changed...) // [] in JSON, not null
			changes.Restart = append([]cachesidecar.Change{}, changes.Restart...)
			return p.show(c, changes, changesText(changes))
		}),
	}
}

// changesText has a table of what a reload has done.
func changesText(changes cachesidecar.Changes) string {
	if len(changes.Changed)+len(changes.Restart) == 0 {
		return "Nothing has changed.\n"
	}
	var t table.Rows
	for _, part := range []struct {
		title string
		list  []cachesidecar.Change
	}{{"CHANGED", changes.Changed}, {"NEEDS A RESTART", changes.Restart}} {
		if len(part.list) == 0 {
			continue
		}
		t.AddRow(part.title, "FROM", "TO")
		for _, c := range part.list {
			t.AddRow(c.Setting, c.From, c.To)
		}
	}
	return t.String()
}
