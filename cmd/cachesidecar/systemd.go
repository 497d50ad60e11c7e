package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/cachesidecar/cachesidecar/client"
)

// What systemd is told of this process. Without systemd all of it does nothing.

// tellReady says that the sidecar serves, or that a reload has ended.
func tellReady() error {
	_, err := daemon.SdNotify(false, daemon.SdNotifyReady)
	return err
}

// tellReloading says that a reload begins. It ends with tellReady.
func tellReloading() {
	_, _ = daemon.SdNotify(false, fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading,
		monotonic().Microseconds()))
}

// tellStopping says that the process ends, and how long that may take.
func tellStopping(within time.Duration) {
	_, _ = daemon.SdNotify(false, fmt.Sprintf("%s\nEXTEND_TIMEOUT_USEC=%d", daemon.SdNotifyStopping,
		within.Microseconds()))
}

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
	return background(context.Background(), func(ctx context.Context) {
		for ctx.Err() == nil {
			if !hangs(ctx, socket, limit/3) {
				_, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog)
			} else if ctx.Err() == nil {
				log.Error("the sidecar does not answer its own request: systemd ends this process unless that changes",
					"watchdog", limit, "socket", socket)
			}
			_ = sleep(ctx, limit/3)
		}
	})
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
