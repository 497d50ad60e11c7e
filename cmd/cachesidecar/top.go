package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/internal/logs"
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
		Action: counted(0, 0, func(c *cli.Context) error { return top(p, c) }),
	}
}

func top(p *program, c *cli.Context) error {
	v := &view{interval: c.Duration("interval"), by: &orders[0]}
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
	r := &sampler{cl: cl, timeout: c.Duration("timeout")}
	first := r.read(c.Context)
	if first.err != nil {
		return explain(c, first.err)
	}
	if c.Bool("once") {
		return topOnce(p, c, v, r, first)
	}
	v.bold, v.prompt = os.Getenv("NO_COLOR") == "", true
	return topLive(c.Context, &liveTop{view: v, screen: screen{in: in, out: p.out.(*os.File)}, now: first}, r)
}

// topOnce prints one page, as wide as it needs to be.
func topOnce(p *program, c *cli.Context, v *view, r *sampler, first sample) error {
	if err := sleep(c.Context, v.interval); err != nil {
		return err
	}
	second := r.read(c.Context)
	second.hot.Keys = second.hot.Keys[:min(len(second.hot.Keys), 20)]
	if second.err != nil {
		return explain(c, second.err)
	}
	const width = 200
	_, err := fmt.Fprintln(p.out, strings.Join(v.frame(&second, &first, width, 0), "\n"))
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// liveTop is the state of the page on a terminal.
type liveTop struct {
	view   *view
	screen screen
	now    sample
	last   *sample
}

// topLive shows pages until q is pressed or ctx ends. It gives the terminal back in any case.
func topLive(ctx context.Context, t *liveTop, r *sampler) (err error) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer stop()
	signals, continued := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGWINCH, syscall.SIGTSTP)
	signal.Notify(continued, syscall.SIGCONT)
	defer signal.Stop(signals)
	defer signal.Stop(continued)

	defer func() { err = errors.Join(err, t.screen.close()) }()
	if err := t.screen.open(); err != nil {
		return err
	}
	pressed, err := readKeys(t.screen.in)
	if err != nil {
		return err
	}
	defer pressed.close()
	samples, end := sampling(ctx, r, t.view.interval)
	defer end()
	return t.loop(ctx, pressed.C, samples, signals, continued)
}

// loop draws a page after each event.
func (t *liveTop) loop(
	ctx context.Context, pressed <-chan byte, samples <-chan sample, signals, continued <-chan os.Signal,
) error {
	for {
		if err := t.draw(); err != nil {
			return err
		}
		suspend := false
		select {
		case <-ctx.Done():
			return nil
		case key, ok := <-pressed:
			if !ok || key == 'q' || key == 'Q' || key == ctrlC {
				return nil
			}
			suspend = key == ctrlZ
			t.view.press(key)
		case s := <-samples:
			t.add(s)
		case sig := <-signals:
			suspend = sig == syscall.SIGTSTP
		case <-continued: // the shell has changed the terminal
			if err := errors.Join(t.screen.close(), t.screen.open()); err != nil {
				return err
			}
		}
		if suspend {
			if err := t.screen.suspend(continued); err != nil {
				return err
			}
		}
	}
}

// Keys of terminals.
const (
	ctrlC = 0x03
	ctrlZ = 0x1a
)

// press chooses the order that a key stands for.
func (v *view) press(key byte) {
	for i := range orders {
		if orders[i].key == key {
			v.by = &orders[i]
		}
	}
}

// add takes a sample. One that has failed leaves the numbers of the one before.
func (t *liveTop) add(s sample) {
	if t.now.err = s.err; s.err == nil {
		last := t.now
		t.last, t.now = &last, s
	}
}

// draw writes the page at once, over the one before.
func (t *liveTop) draw() error {
	width, height := t.screen.size()
	now := t.now
	if now.err != nil {
		now.err = errors.New(logs.Plain(now.err.Error()))
	}
	lines := t.view.frame(&now, t.last, width, height)
	_, err := t.screen.out.WriteString(home + strings.Join(lines, endOfLine) + "\x1b[K" + endOfScreen)
	return err
}

// sampling reads a sample each interval, in a goroutine of its own. end ends it, and waits
// for it.
func sampling(ctx context.Context, r *sampler, interval time.Duration) (samples <-chan sample, end func()) {
	ctx, cancel := context.WithCancel(ctx)
	c := make(chan sample)
	var done sync.WaitGroup
	done.Go(func() { // ends with ctx
		for sleep(ctx, interval) == nil {
			s := r.read(ctx)
			select {
			case c <- s:
			case <-ctx.Done():
			}
		}
	})
	return c, func() {
		cancel()
		done.Wait()
	}
}
