package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
)

func demoCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "show three sidecars on this machine as one cache",
		Description: "Starts three sidecars on free ports of 127.0.0.1, reads and writes through them, kills one\n" +
			"and brings it back, and tells what it sees, with measured times. Takes about 8 s and leaves nothing\n" +
			"behind. Exit status 1 if something is not as it should be.",
		Action: counted(0, 0, func(c *cli.Context) error {
			ctx := c.Context
			if !signal.Ignored(syscall.SIGHUP) { // it is ignored under nohup
				var stop context.CancelFunc
				ctx, stop = signal.NotifyContext(ctx, syscall.SIGHUP)
				defer stop()
			}
			// A closed output is an error then, and does not end the process at once.
			pipe := make(chan os.Signal, 1)
			signal.Notify(pipe, syscall.SIGPIPE)
			defer signal.Stop(pipe)
			return tellStory(ctx, p.out)
		}),
	}
}

// tellStory runs the demo.
func tellStory(ctx context.Context, out io.Writer) (err error) {
	s := &story{out: out, begun: time.Now(), owner: map[string]string{}}
	s.tell("three sidecars on this machine, each as on a host of its own")
	for range 3 { // another process may take a port that was free
		if s.demoHosts, err = startHosts(ctx, "one", "two", "three"); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return s.not(ctx, err)
	}
	s.one, s.two, s.three = s.list[0], s.list[1], s.list[2]
	defer func() { err = errors.Join(err, s.end()) }()
	steps := []func(context.Context) error{
		s.join, s.write, s.sources, s.medians, s.kill, s.outage, s.restart, s.leave,
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return s.not(ctx, err)
		}
		if s.err != nil {
			return s.err
		}
	}
	s.tell("done; the sidecars are ended and their sockets removed")
	return s.err
}
