//go:build unix

// Package execorigin loads values by running a command, with the key as its
// last argument; what it writes to its standard output is the value.
//
// Exit status 0 is a value, another configured one means "absent", all others
// are errors that may be retried. The command runs in a process group of its
// own, which is killed at the timeout or once it has written too much. There is
// no shell: a key is one argument, whatever is in it.
//
// os/exec runs two goroutines per load, which end with it. It is for scripts: a
// process per load takes milliseconds.
package execorigin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cachesidecar/cachesidecar/loader"
)

// Config describes the command.
type Config struct {
	Command   []string      // program and first arguments; needed
	Env       []string      // NAME=value; nil: only PATH and HOME of this process, whose others may be secrets
	Timeout   time.Duration // zero: 5 s
	Absent    int           // the exit status that says "there is none"; zero: 1
	MaxOutput int           // bytes; zero: 8 MiB
}

// Source is the origin.
type Source struct {
	cfg  Config
	path string
	name string
	// dashes says that a "--" ends the command's options, so that a key may
	// begin with a dash.
	dashes bool
}

// New checks the configuration and finds the program.
func New(cfg Config) (*Source, error) {
	if len(cfg.Command) == 0 {
		return nil, errors.New("exec origin: no command: give the program and its arguments")
	}
	path, err := exec.LookPath(cfg.Command[0])
	if err != nil {
		return nil, fmt.Errorf("exec origin: program %q: %w", cfg.Command[0], err)
	}
	if cfg.Timeout < 0 || cfg.MaxOutput < 0 || cfg.Absent < 0 || cfg.Absent > 255 {
		return nil, fmt.Errorf("exec origin: timeout %v, output %d, absent status %d: give zero for the defaults, or more, and a status of at most 255", cfg.Timeout, cfg.MaxOutput, cfg.Absent)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.Absent == 0 {
		cfg.Absent = 1
	}
	if cfg.MaxOutput == 0 {
		cfg.MaxOutput = 8 << 20
	}
	if cfg.Env == nil {
		cfg.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
	}
	cfg.Command = slices.Clone(cfg.Command)
	return &Source{cfg: cfg, path: path, name: cfg.Command[0], dashes: slices.Contains(cfg.Command[1:], "--")}, nil
}

// killWait is how long a killed command's open pipes are waited for.
const killWait = 100 * time.Millisecond

// Load runs the command for one key.
func (s *Source) Load(ctx context.Context, key []byte) (loader.Value, error) {
	arg := string(key)
	switch {
	case strings.ContainsRune(arg, 0):
		return loader.Value{}, fmt.Errorf("%w: an argument cannot have a zero byte", loader.ErrBadKey)
	case strings.HasPrefix(arg, "-") && !s.dashes:
		return loader.Value{}, fmt.Errorf("%w: it would be taken for an option: end the command's with \"--\"", loader.ErrBadKey)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.path, append(slices.Clone(s.cfg.Command[1:]), arg)...)
	cmd.Env = s.cfg.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killWait
	out := &limited{most: s.cfg.MaxOutput, over: cancel}
	said := &limited{most: 256, over: func() {}}
	cmd.Stdout, cmd.Stderr = out, said
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case out.exceeded:
		return loader.Value{}, fmt.Errorf("%w: exec origin %s: more than %d bytes", loader.ErrTooLarge, s.name, s.cfg.MaxOutput)
	case err == nil:
		return loader.Value{Bytes: out.buf.Bytes()}, nil
	case ctx.Err() != nil:
		return loader.Value{}, fmt.Errorf("exec origin %s: killed: %w", s.name, ctx.Err())
	case errors.As(err, &exit) && exit.ExitCode() == s.cfg.Absent:
		return loader.Value{}, loader.ErrAbsent
	}
	return loader.Value{}, fmt.Errorf("exec origin %s: %w, and said %q", s.name, err, said.buf.String())
}

// limited keeps the first bytes, takes all others too, and calls over at the
// first of them.
type limited struct {
	buf      bytes.Buffer
	most     int
	exceeded bool
	over     func()
}

func (l *limited) Write(p []byte) (int, error) {
	room := l.most - l.buf.Len()
	if len(p) <= room {
		return l.buf.Write(p)
	}
	l.buf.Write(p[:room])
	if !l.exceeded {
		l.exceeded = true
		l.over()
	}
	return len(p), nil
}
