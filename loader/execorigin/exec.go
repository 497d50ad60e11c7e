//go:build unix

// Package execorigin loads values by running a command. The key is the last argument;
// the standard output is the value.
//
// Exit status 0 means that the output is the value. A configurable status means
// "absent". All others are errors that may be retried. The command runs in a process
// group of its own. The group is killed at the timeout, or when the command has written
// too much. There is no shell: a key is one argument, whatever it contains.
//
// Two other commands store a value, which they read from standard input, and delete a
// key. One more prints all keys, one per line; it cannot list keys that contain a line feed.
//
// os/exec runs two or three goroutines per command, which end with it. The package is
// meant for scripts: a process per load costs milliseconds.
package execorigin

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Config has the settings of the commands.
type Config struct {
	// Command is the program and its first arguments. Required.
	Command []string `yaml:"command" answers:"yes"`
	// Env are variables beside PATH and HOME: NAME=value, or NAME for the value in the
	// environment of this process. Secrets must be given by NAME. Default: none.
	Env []string `yaml:"env"`
	// Absent is the exit status that says that there is no such key. Default: 1. Bounds: up
	// to 255.
	Absent int `yaml:"absent" answers:"yes" default:"1"`

	Write WriteConfig `yaml:",inline"`
}

// defaultTimeout is the time of a command.
const defaultTimeout = 5 * time.Second

// Kind returns "exec".
func (Config) Kind() string { return "exec" }

// Descriptors returns the maximum number of file descriptors that calls use: two pipes
// and the program, for each concurrent load (64, unless a namespace sets another
// number).
func (Config) Descriptors() int { return 3 * 64 }

// Open opens the origin. It finds the programs but does not run them.
func (c Config) Open(o loader.OriginOptions) (*loader.Origin, error) {
	s, err := New(c, o)
	if err != nil {
		return nil, err
	}
	return &loader.Origin{Source: s, Writer: s, List: s.NewLister, Secrets: s.secrets}, nil
}

// environment returns the variables of the commands, and those of their values that are
// secrets.
func (c *Config) environment() (env, secrets []string, err error) {
	env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
	for _, v := range c.Env {
		name, _, given := strings.Cut(v, "=")
		if given {
			if err := settings.VariableName("env", name); err != nil {
				return nil, nil, err
			}
			env = append(env, v)
			continue
		}
		value, err := settings.SecretEnv("env", v)
		if err != nil {
			return nil, nil, err
		}
		env, secrets = append(env, v+"="+value), append(secrets, value)
	}
	return env, secrets, nil
}

// Source runs the commands. It is safe for concurrent use.
type Source struct {
	cfg     Config
	options loader.OriginOptions
	env     []string // environment of the commands
	secrets []string // the secrets among the values in env

	load, store, delete program // the latter two only with write-through
}

// New validates the configuration and finds the programs.
func New(cfg Config, o loader.OriginOptions) (*Source, error) {
	writes := len(cfg.Write.Store) > 0 || len(cfg.Write.Delete) > 0 || cfg.Write.Refused != 0
	o, err := o.WithDefaults("exec", defaultTimeout, writes)
	if err != nil {
		return nil, err
	}
	if cfg.Absent < 0 || cfg.Absent > 255 {
		return nil, settings.Problemf("absent", "%d: give 1 to 255, or zero for 1", cfg.Absent)
	}
	cfg.Absent = cmp.Or(cfg.Absent, 1)
	s := &Source{cfg: cfg, options: o}
	if s.env, s.secrets, err = cfg.environment(); err != nil {
		return nil, err
	}
	if s.load, err = find("load", cfg.Command, s.env); err != nil || !o.WriteThrough {
		return s, err
	}
	return s, s.findWrites()
}

// Load runs the command for one key. An absent key gives ErrAbsent.
func (s *Source) Load(ctx context.Context, key []byte) (loader.Value, error) {
	arg, err := s.load.argument(key)
	if err != nil {
		return loader.Value{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	out := &limited{most: s.options.MaxValue, over: cancel, reserved: loader.Reservation{Memory: s.options.Memory}}
	defer out.reserved.Free()
	_, err = s.load.run(ctx, nil, out, arg)
	var exit *exec.ExitError
	switch {
	case out.busy != nil:
		return loader.Value{}, fmt.Errorf("exec origin %s: %w", s.load.name, out.busy)
	case out.exceeded:
		return loader.Value{}, fmt.Errorf("%w: exec origin %s: more than %d bytes",
			loader.ErrTooLarge, s.load.name, s.options.MaxValue)
	case err == nil:
		return loader.Value{Bytes: out.buf.Bytes()}, nil
	case errors.As(err, &exit) && exit.ExitCode() == s.cfg.Absent:
		return loader.Value{}, loader.ErrAbsent
	}
	return loader.Value{}, err
}

// limited keeps the first bytes, up to most, as long as there is memory. It accepts and drops all
// further bytes, and calls over at the first of them.
type limited struct {
	buf      bytes.Buffer
	most     int
	reserved loader.Reservation
	exceeded bool
	busy     error // there is no memory
	over     func()
}

func (lim *limited) Write(p []byte) (int, error) {
	left := lim.most - lim.buf.Len()
	if has := lim.buf.Cap(); len(p) > lim.buf.Available() && lim.busy == nil {
		if lim.busy = lim.reserved.Take(has + len(p)); lim.busy != nil { // the buffer doubles
			lim.over()
		}
	}
	if lim.busy != nil {
		return len(p), nil
	}
	if len(p) <= left {
		return lim.buf.Write(p)
	}
	lim.buf.Write(p[:left])
	if !lim.exceeded {
		lim.exceeded = true
		lim.over()
	}
	return len(p), nil
}
