//go:build unix

package execorigin

import (
	"context"
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar/loader"
)

// ListConfig describes the command that prints all keys.
type ListConfig struct {
	Command []string      // program and arguments; needed
	Timeout time.Duration // zero: loader.ListTimeout
}

// Lister runs it.
type Lister struct {
	cfg     ListConfig
	program program
}

// NewLister checks the configuration and finds the program, which gets the
// source's environment.
func (s *Source) NewLister(cfg ListConfig) (*Lister, error) {
	if cfg.Timeout < 0 {
		return nil, fmt.Errorf("exec origin: timeout %v of the list: give zero for %v, or more", cfg.Timeout, loader.ListTimeout)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = loader.ListTimeout
	}
	p, err := find("list the keys", cfg.Command, s.cfg.Env)
	if err != nil {
		return nil, err
	}
	return &Lister{cfg, p}, nil
}

// Keys gives each the command's lines. All of them count only if it has ended
// with status 0.
func (l *Lister) Keys(ctx context.Context, each func(key []byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	out := &list{loader.NewLines(each), cancel}
	_, err := l.program.run(ctx, nil, out)
	if refused := out.Err(); refused != nil {
		return refused
	}
	if err != nil {
		return err
	}
	return out.Close()
}

// list ends the command at the first error.
type list struct {
	*loader.Lines
	over func()
}

func (l *list) Write(p []byte) (int, error) {
	n, err := l.Lines.Write(p)
	if err != nil {
		l.over()
	}
	return n, err
}
