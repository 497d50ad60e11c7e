package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
)

func drainCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:  "drain",
		Usage: "hand over what this host owns to the others, before it is stopped or maintained",
		Description: "The sidecar goes on serving its apps, through the other hosts, until it is stopped or the\n" +
			"drain is undone. SIGTERM drains by itself: \"drain\" is for a host that stays up.",
		Flags: []cli.Flag{
			boolFlag("undo", "take the host's part of the keys back, also in the middle of a drain"),
			boolFlag("force", "drain also the only host: its entries are gone, and its apps get misses and errors"),
			boolFlag("stop", "then end the sidecar, as SIGTERM does, and wait for its end"),
			jsonFlag, socketFlag, tokenFlag, timeoutFlag("wait this `TIME` for the answer", 30*time.Second),
		},
		Action: counted(0, 0, p.drain),
	}
}

func (p *program) drain(c *cli.Context) error {
	o := cachesidecar.DrainOptions{Undo: c.Bool("undo"), Force: c.Bool("force"), End: c.Bool("stop")}
	if o.Undo && (o.Force || o.End) {
		return usagef("--undo stands alone: leave out --force and --stop")
	}
	return ask(c, func(ctx context.Context, cl *client.Client) error {
		before, err := cl.Stats(ctx)
		if err != nil {
			return err
		}
		if isTerminal(p.err) && !o.Undo {
			fmt.Fprintf(p.err, "draining %s: %s partitions\n",
				shown(before).Node, count(int64(before.Cluster.Owned)))
		}
		d, err := cl.Drain(ctx, o)
		if errors.Is(err, cachesidecar.ErrUnsupported) {
			return fmt.Errorf("%w: the sidecar runs an older version: restart it with this one", err)
		}
		if err != nil {
			return err
		}
		if o.End && !d.Undone {
			if err := ended(ctx, int(before.Process.PID)); err != nil {
				return err
			}
		}
		if err := p.show(c, d, drainedText(shown(d), o)); err != nil {
			return err
		}
		if d.Undone && !o.Undo {
			return errMiss
		}
		return nil
	})
}

// ended waits until a process is gone.
func ended(ctx context.Context, pid int) error {
	for syscall.Kill(pid, 0) != syscall.ESRCH {
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d of the sidecar has not ended: %w", pid, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

func drainedText(d cachesidecar.Drained, o cachesidecar.DrainOptions) string {
	switch {
	case o.Undo && d.Undone:
		return d.Node + " takes its part of the keys again\n"
	case o.Undo:
		return d.Node + " was not drained\n"
	case d.Undone:
		return "the drain of " + d.Node + " was undone\n"
	}
	text := fmt.Sprintf("%s has handed over %s partitions with %s entries in %v\n", d.Node,
		count(d.Partitions-d.NotTaken), count(d.Entries), millis(d.TookMS))
	if d.NotTaken > 0 {
		text += fmt.Sprintf("%s partitions were taken by no other host\n", count(d.NotTaken))
	}
	if o.End {
		text += d.Node + " has ended\n"
	}
	return text
}
