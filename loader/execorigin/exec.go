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

// Config is the settings of the commands.
type Config struct {
	Command []string `yaml:"command"` // program and first arguments; needed
	// Env has variables beside PATH and HOME: NAME=value, or NAME for this process's
	// own. Secrets have to be given by NAME.
	Env    []string `yaml:"env"`
	Absent int      `yaml:"absent"` // the exit status that says that there is no such key; default 1

	Write WriteConfig `yaml:",inline"`

	Timeout  time.Duration `yaml:"-"` // zero: 5 s
	MaxValue int           `yaml:"-"` // bytes; zero: 8 MiB
}

// Kind returns "exec".
func (Config) Kind() string { return "exec" }

// Descriptors returns how many file descriptors the calls use at most: two pipes and the
// program, for each load that may run at once unless a namespace says otherwise.
func (Config) Descriptors() int { return 3 * 64 }

// Open opens the origin. It finds the programs and runs none.
func (c Config) Open(o loader.OriginOptions) (*loader.Origin, error) {
	c.Timeout, c.MaxValue = o.Timeout, o.MaxValue
	if err := o.CheckWrites(len(c.Write.Store) > 0 || len(c.Write.Delete) > 0 || c.Write.Refused != 0); err != nil {
		return nil, err
	}
	s, err := New(c)
	if err != nil {
		return nil, err
	}
	opened := &loader.Origin{
		Source:  s,
		List:    func(l loader.List) (loader.Lister, error) { return s.NewLister(l) },
		Close:   func() error { return nil },
		Secrets: s.secrets,
	}
	if o.WriteThrough {
		opened.Writer, err = s.NewWriter(c.Write)
	}
	return opened, err
}

// environment returns the variables of the commands, and those of their values that
// are secrets.
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

// Source is the origin.
type Source struct {
	cfg     Config
	env     []string // of the commands
	secrets []string // among its values
	program program
}

// New checks the configuration and finds the program.
func New(cfg Config) (*Source, error) {
	if cfg.Timeout < 0 || cfg.MaxValue < 0 || cfg.Absent < 0 || cfg.Absent > 255 {
		return nil, fmt.Errorf("exec origin: timeout %v, value %d, absent status %d: give zero for the defaults, or more, and a status of at most 255", cfg.Timeout, cfg.MaxValue, cfg.Absent)
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, 5*time.Second)
	cfg.MaxValue = cmp.Or(cfg.MaxValue, 8<<20)
	cfg.Absent = cmp.Or(cfg.Absent, 1)
	s := &Source{cfg: cfg}
	var err error
	if s.env, s.secrets, err = cfg.environment(); err != nil {
		return nil, err
	}
	if s.program, err = find("load", cfg.Command, s.env); err != nil {
		return nil, err
	}
	return s, nil
}

// Load runs the command for one key.
func (s *Source) Load(ctx context.Context, key []byte) (loader.Value, error) {
	arg, err := s.program.argument(key)
	if err != nil {
		return loader.Value{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	out := &limited{most: s.cfg.MaxValue, over: cancel}
	_, err = s.program.run(ctx, nil, out, arg)
	var exit *exec.ExitError
	switch {
	case out.exceeded:
		return loader.Value{}, fmt.Errorf("%w: exec origin %s: more than %d bytes", loader.ErrTooLarge, s.program.name, s.cfg.MaxValue)
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
