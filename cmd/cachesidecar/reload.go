package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// reloader reads the configuration of run again and puts it into effect, one reload at a
// time.
type reloader struct {
	read     func() (fileConfig, error) // of the same command line, and of the file as it is now
	s        *sidecar.Sidecar
	log      *logs.Log
	terminal bool

	mu    sync.Mutex
	was   fileConfig // in effect, as far as the log is concerned
	level slog.Level // of the log
}

// on reloads on each signal, until stop is called. Signals that come during a reload make
// one more.
func (r *reloader) on(hangup <-chan os.Signal) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { // ends when stop is called
		defer close(ended)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangup:
			}
			r.log.Logger().Info("SIGHUP: the configuration is read again")
			_, _ = r.reload(ctx) // it has logged the error
		}
	}()
	return func() { cancel(); <-ended }
}

// reload reads the configuration, puts it into effect, and logs the difference.
func (r *reloader) reload(ctx context.Context) (cachesidecar.Changes, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.serves() {
		begins := fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, monotonic().Microseconds())
		_, _ = daemon.SdNotify(false, begins)
		defer func() {
			if r.serves() {
				_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
			}
		}()
	}
	log := r.log.Logger()
	changes, err := r.apply(ctx)
	if err != nil {
		log.Error("the configuration is refused: this host continues with the one that it had",
			"error", oneLine(err))
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
func (r *reloader) serves() bool {
	select {
	case <-r.s.Ready():
	default:
		return false
	}
	select {
	case <-r.s.Ending():
		return false
	default:
		return true
	}
}

// maxChangeLines bounds the lines about changes that one reload logs, of each kind.
const maxChangeLines = 64

// oneLine joins the lines of an error, for the log.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// apply puts the configuration into effect as it is now.
func (r *reloader) apply(ctx context.Context) (changes cachesidecar.Changes, err error) {
	cfg, err := r.read()
	var found problems
	if err != nil && !errors.As(err, &found) {
		return changes, err
	}
	if wrong := cfg.check(found); len(wrong) > 0 {
		return changes, wrong
	}
	options, err := cfg.logOptions(r.terminal)
	if err != nil {
		return changes, err
	}
	if changes, err = r.s.Apply(ctx, cfg.Config); err != nil {
		return changes, err
	}
	if is, was := cmp.Or(cfg.LogLevel, "info"), cmp.Or(r.was.LogLevel, "info"); is != was {
		changes.Changed = append(changes.Changed, cachesidecar.Change{Setting: "log_level", From: was, To: is})
	}
	if cfg.LogFormat != r.was.LogFormat {
		changes.Restart = append(changes.Restart, cachesidecar.Change{
			Setting: "log_format", From: cmp.Or(r.was.LogFormat, "default"), To: cmp.Or(cfg.LogFormat, "default"),
		})
	}
	r.was.LogLevel, r.level = cfg.LogLevel, options.Level // the format stays
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
		Action: counted(0, 0, func(c *cli.Context) error {
			return ask(c, func(ctx context.Context, cl *client.Client) error {
				changes, err := cl.Reload(ctx)
				if errors.Is(err, cachesidecar.ErrBadRequest) {
					fmt.Fprintf(p.err, "%s\nNothing has changed.\n", logs.Lines(strings.TrimPrefix(err.Error(),
						cachesidecar.ErrBadRequest.Error()+": ")))
					return errMiss
				}
				if err != nil {
					return err
				}
				changes.Changed = append([]cachesidecar.Change{}, changes.Changed...) // [] in JSON, not null
				changes.Restart = append([]cachesidecar.Change{}, changes.Restart...)
				return p.show(c, changes, changesText(shown(changes)))
			})
		}),
	}
}

// changesText has a table of what a reload has done.
func changesText(changes cachesidecar.Changes) string {
	if len(changes.Changed)+len(changes.Restart) == 0 {
		return "Nothing has changed.\n"
	}
	var t table
	for _, part := range []struct {
		title string
		list  []cachesidecar.Change
	}{{"CHANGED", changes.Changed}, {"NEEDS A RESTART", changes.Restart}} {
		if len(part.list) == 0 {
			continue
		}
		t.row(part.title, "FROM", "TO")
		for _, c := range part.list {
			t.row(c.Setting, c.From, c.To)
		}
	}
	return t.String()
}
