package main

import (
	"io"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/internal/top"
)

func topCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:  "top",
		Usage: "show live what all hosts do, on a terminal",
		Description: "Hosts, namespaces, and the keys that this host reads most; q or Ctrl-C ends it.\n" +
			"The keys r, w, h, l, e, g, m and n choose the order: reads, writes, misses, loads, errors, lag,\n" +
			"memory, name. For administrators of the sidecar; others see this host only.",
		Flags: clientFlags(
			timeFlag("interval", "read the numbers anew each `TIME`", 2*time.Second, 200*time.Millisecond, time.Hour),
			boolFlag("once", "print one page after one interval, and need no terminal"),
		),
		Action: withArgs(0, 0, p.top),
	}
}

func (p *program) top(c *cli.Context) error {
	in, isFile := p.in.(*os.File)
	live := isFile && isTerminal(p.in) && isTerminal(p.out)
	if !live && !c.Bool("once") {
		return usagef("top: stdin and stdout are no terminal: give --once for one page, " +
			"or use \"cachesidecar stats --cluster --json\"")
	}
	cl, err := connect(c.Context, c)
	if err != nil {
		return err
	}
	defer cl.Close()
	o := top.Options{
		Interval: c.Duration("interval"), Timeout: c.Duration("timeout"), Bold: os.Getenv("NO_COLOR") == "",
	}
	if !c.Bool("once") {
		return explain(c, top.Live(c.Context, cl, o, in, p.out.(*os.File)))
	}
	page, err := top.Once(c.Context, cl, o)
	if err != nil {
		return explain(c, err)
	}
	_, err = io.WriteString(p.out, page)
	return err
}
