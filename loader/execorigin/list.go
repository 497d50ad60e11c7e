//go:build unix

package execorigin

import (
	"context"

	"github.com/cachesidecar/cachesidecar/loader"
)

// lister runs the list command.
type lister struct {
	list    loader.List
	program program
}

// NewLister validates the configuration and finds the program. The program gets the
// source's environment.
func (s *Source) NewLister(list loader.List) (loader.Lister, error) {
	list, err := list.Only("command")
	if err != nil {
		return nil, err
	}
	p, err := find("list the keys", list.Command, s.env)
	if err != nil {
		return nil, err
	}
	return &lister{list, p}, nil
}

// Keys calls each for every line of the command's output. The list is complete only if
// the command ends with status 0.
func (ls *lister) Keys(ctx context.Context, each func(key []byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, ls.list.Timeout)
	defer cancel()
	out := &list{loader.NewLines(ls.list.Begin(ctx, each)), cancel}
	_, err := ls.program.run(ctx, nil, out)
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
