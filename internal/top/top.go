// Package top is the page of `cachesidecar top`: what the hosts of a cluster do, with the rates between two readings.
//
// Input is a client of one sidecar, which answers for all hosts, and a terminal or none. Output is one page as text
// (Once), or pages on the terminal until a key or the context ends them (Live). Live starts two goroutines: one reads
// the statistics each interval and ends with Live; one waits for keys and ends with the process, since nothing can
// interrupt such a read.
//
// The package makes no connection, reads no flag and judges no host: package telemetry says what is wrong with one.
package top

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cachesidecar/cachesidecar/client"
)

// Options say how the page is made.
type Options struct {
	Interval time.Duration // between two readings
	Timeout  time.Duration // of a reading
	Bold     bool          // heads of tables are bold on a terminal
}

// onceKeys and onceWidth bound the page that Once returns: its keys, and its columns.
const onceKeys, onceWidth = 20, 200

// Once returns one page after one interval, as wide as it needs to be.
func Once(ctx context.Context, cl *client.Client, o Options) (page string, err error) {
	r := &sampler{cl: cl, timeout: o.Timeout}
	first := r.read(ctx)
	if first.err != nil {
		return "", first.err
	}
	select {
	case <-time.After(o.Interval):
	case <-ctx.Done():
		return "", ctx.Err()
	}
	second := r.read(ctx)
	second.hot.Keys = second.hot.Keys[:min(len(second.hot.Keys), onceKeys)]
	if second.err != nil {
		return "", second.err
	}
	v := &view{interval: o.Interval, by: &orders[0]}
	return strings.Join(v.frame(&second, &first, onceWidth, 0), "\n") + "\n", nil
}

// Live shows pages on a terminal until q is pressed or ctx ends. It gives the terminal back in any case.
func Live(ctx context.Context, cl *client.Client, o Options, in, out *os.File) error {
	r := &sampler{cl: cl, timeout: o.Timeout}
	first := r.read(ctx)
	if first.err != nil {
		return first.err
	}
	v := &view{interval: o.Interval, by: &orders[0], bold: o.Bold, prompt: true}
	return showLive(ctx, &livePage{view: v, screen: screen{in: in, out: out}, now: first}, r)
}

// livePage is the state of the page on a terminal.
type livePage struct {
	view   *view
	screen screen
	now    sample
	last   *sample
}

// showLive shows pages from a first one on.
func showLive(ctx context.Context, t *livePage, r *sampler) (err error) {
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
	pressed := make(chan byte)
	go readKeys(ctx, t.screen.in, pressed) // ends with the process
	samples, stopSampling := startSampling(ctx, r, t.view.interval)
	defer stopSampling()
	return t.loop(ctx, pressed, samples, signals, continued)
}

// loop draws a page after each event.
func (t *livePage) loop(
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
			t.view.pressKey(key)
		case s := <-samples:
			t.addSample(s)
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

// addSample takes a sample. One that has failed leaves the numbers of the one before.
func (t *livePage) addSample(s sample) {
	if t.now.err = s.err; s.err == nil {
		last := t.now
		t.last, t.now = &last, s
	}
}

// draw writes the page at once, over the one before.
func (t *livePage) draw() error {
	width, height := t.screen.size()
	lines := t.view.frame(&t.now, t.last, width, height)
	_, err := t.screen.out.WriteString(home + strings.Join(lines, endOfLine) + "\x1b[K" + endOfScreen)
	return err
}

// startSampling reads a sample each interval, in a goroutine of its own, which stop ends.
func startSampling(ctx context.Context, r *sampler, interval time.Duration) (samples <-chan sample, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	c := make(chan sample)
	var running sync.WaitGroup
	running.Go(func() { // ends with ctx
		for {
			select {
			case <-time.After(interval):
			case <-ctx.Done():
				return
			}
			s := r.read(ctx)
			select {
			case c <- s:
			case <-ctx.Done():
			}
		}
	})
	return c, func() { cancel(); running.Wait() }
}
