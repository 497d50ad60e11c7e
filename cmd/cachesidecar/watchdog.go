package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/cachesidecar/cachesidecar/client"
)

// watchdog tells systemd in time that the sidecar lives, if its unit has WatchdogSec. It
// does so only while the sidecar does not hang: systemd ends a process that does, and starts
// it again. The function that watchdog returns ends it.
func watchdog(socket string, log *slog.Logger) (stop func()) {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the watchdog of systemd is off: its variables are not right", "error", err)
	}
	if limit <= 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { // ends when stop is called
		defer close(ended)
		tick := time.NewTicker(limit / 3)
		defer tick.Stop()
		for {
			if !hangs(ctx, socket, limit/3) {
				_, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog)
			} else if ctx.Err() == nil {
				log.Error("the sidecar does not answer its own request: systemd ends this process unless that changes",
					"watchdog", limit, "socket", socket)
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// hangs reports whether a sidecar takes connections and gives no answer. A sidecar that
// refuses a connection, since it has too many or is about to end, does not hang.
func hangs(ctx context.Context, socket string, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cl, err := client.Dial(ctx, client.Config{
		Socket: socket, Name: "watchdog", Conns: 1, DialTimeout: limit, NoSharedMemory: true,
	})
	if err == nil {
		defer cl.Close()
		err = cl.Ping(ctx)
	}
	return timedOut(err)
}
