//go:build unix

// Package execorigin loads values by running a command, with the key as its
// last argument; what it writes to its standard output is the value.
//
// Exit status 0 is a value, another configured one means "absent", all others
// are errors that may be retried. The command runs in a process group of its
// own, which is killed at the timeout or once it has written too much. There is
// no shell: a key is one argument, whatever is in it.
//
// Two other commands store a value, which they get on their standard input, and
// delete a key (Writer); one more prints all keys, one a line (Lister). Keys with
// a line feed in them cannot be listed so.
//
// os/exec runs two or three goroutines per command, which end with it. It is for
// scripts: a process per load takes milliseconds.
package execorigin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
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
	cfg     Config
	program program
}

// New checks the configuration and finds the program.
func New(cfg Config) (*Source, error) {
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
	p, err := find("load", cfg.Command, cfg.Env)
	if err != nil {
		return nil, err
	}
	return &Source{cfg: cfg, program: p}, nil
}

// Load runs the command for one key.
func (s *Source) Load(ctx context.Context, key []byte) (loader.Value, error) {
	arg, err := s.program.argument(key)
	if err != nil {
		return loader.Value{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	out := &limited{most: s.cfg.MaxOutput, over: cancel}
	_, err = s.program.run(ctx, nil, out, arg)
	var exit *exec.ExitError
	switch {
	case out.exceeded:
		return loader.Value{}, fmt.Errorf("%w: exec origin %s: more than %d bytes", loader.ErrTooLarge, s.program.name, s.cfg.MaxOutput)
	case err == nil:
		return loader.Value{Bytes: out.buf.Bytes()}, nil
	case errors.As(err, &exit) && exit.ExitCode() == s.cfg.Absent:
		return loader.Value{}, loader.ErrAbsent
	}
	return loader.Value{}, err
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
