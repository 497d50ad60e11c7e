package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// options are the flags of the command line.
type options struct {
	players int
	ticks   []int
	only    string
	verbose bool
	timeout time.Duration
	restart time.Duration // between restarts of the sidecar; 0: conversations are played
	command []string
}

func main() {
	o, err := parse(os.Args[1:], os.Stderr)
	if err != nil {
		os.Exit(2)
	}
	status, err := run(o, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
	}
	os.Exit(status)
}

func parse(args []string, errors io.Writer) (o options, err error) {
	f := flag.NewFlagSet("conformance", flag.ContinueOnError)
	f.SetOutput(errors)
	f.Usage = func() {
		fmt.Fprintln(errors, "usage: conformance [flags] -- COMMAND ARGS…")
		f.PrintDefaults()
	}
	ticks := ""
	f.IntVar(&o.players, "players", 1, "how many clients of the command play each conversation")
	f.StringVar(&ticks, "ticks", "", "the players, counted from 1, whose calls of one tick share a write: 1,2")
	f.StringVar(&o.only, "only", "", "only conversations whose name contains this")
	f.BoolVar(&o.verbose, "v", false, "name each conversation, also those that passed or were not played")
	f.DurationVar(&o.restart, "restart", 0, "play no conversations, restart the sidecar after each such time")
	f.DurationVar(&o.timeout, "timeout", 10*time.Minute, "how long the command may take")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	for _, t := range strings.FieldsFunc(ticks, func(r rune) bool { return r == ',' }) {
		n, err := strconv.Atoi(t)
		if err != nil {
			fmt.Fprintf(errors, "-ticks %s: want numbers of players\n", ticks)
			return o, err
		}
		o.ticks = append(o.ticks, n-1)
	}
	if o.command = f.Args(); len(o.command) == 0 || o.players < 1 {
		f.Usage()
		return o, flag.ErrHelp
	}
	return o, nil
}

// run runs the command with everything around it, and returns the exit status.
func run(o options, stdout, stderr io.Writer) (status int, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root, err := moduleRoot()
	if err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", "conformance")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if o.restart > 0 {
		return soak(ctx, o, root, dir, stdout, stderr)
	}
	r, err := start(root, dir)
	if err != nil {
		return 1, err
	}
	defer r.stop()
	s := &suite{real: r, dir: dir, players: o.players, ticks: o.ticks}
	if s.all, err = load(o.only); err != nil {
		return 1, err
	}
	m, err := r.manifest(root)
	if err != nil {
		return 1, err
	}
	if m.Conversations, err = s.open(); err != nil {
		return 1, err
	}
	file := filepath.Join(dir, "manifest.json")
	if err := m.write(file); err != nil {
		return 1, err
	}
	status, err = execute(ctx, o, file, r.socket, stdout, stderr)
	return report(o, s, status, stdout), err
}

// execute runs the command and returns its exit status. Signals are passed on to it.
func execute(ctx context.Context, o options, file, socket string, stdout, stderr io.Writer) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, o.command[0], o.command[1:]...)
	cmd.Env = append(os.Environ(), "CONFORMANCE="+file, "CACHESIDECAR_SOCKET="+socket)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, stdout, stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return 1, fmt.Errorf("%s has not ended within %v (-timeout)", o.command[0], o.timeout)
	case ctx.Err() != nil:
		return 1, errors.New("interrupted")
	case errors.As(err, &exit):
		return max(1, exit.ExitCode()), nil
	case err != nil:
		return 1, err
	}
	return 0, nil
}

// report ends the suite, prints what was wrong, and returns the exit status.
func report(o options, s *suite, status int, stdout io.Writer) int {
	wrong := s.close()
	if o.verbose {
		for _, c := range s.all {
			fmt.Fprintf(stdout, "%s: %s\n", c.Name, c.About)
		}
	}
	var unplayed []string
	for _, w := range wrong {
		if w.what == notPlayed && !o.verbose {
			unplayed = append(unplayed, fmt.Sprintf("%s (player %d)", w.name, w.player+1))
			continue
		}
		fmt.Fprintln(stdout, w)
	}
	if n := len(unplayed); n > 0 { // all of them, if the command has ended early
		const most = 3
		names := strings.Join(unplayed[:min(n, most)], ", ")
		if n > most {
			names += ", … (-v names all)"
		}
		fmt.Fprintf(stdout, "not played, no connection came: %d: %s\n", n, names)
	}
	what := fmt.Sprintf("%d conversations, %d players", len(s.all), o.players)
	switch {
	case wrong != nil:
		fmt.Fprintf(stdout, "%s: %d failed\n", what, len(wrong))
		return max(1, status)
	case status != 0:
		fmt.Fprintf(stdout, "%s: the servers saw nothing wrong, but %s has failed with status %d\n",
			what, o.command[0], status)
	default:
		fmt.Fprintf(stdout, "%s: all passed\n", what)
	}
	return status
}
