//go:build unix

package execorigin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"

	"github.com/cachesidecar/cachesidecar/loader"
)

// WriteConfig has the commands that change values. The key is their last argument. Exit
// status 0 means that the change is made.
type WriteConfig struct {
	// Store is the command that stores a value; it reads the value from standard input.
	// Required by write_through.
	Store []string `yaml:"store"`
	// Delete is the command that deletes a value. Required by write_through.
	Delete []string `yaml:"delete"`
	// Refused is the exit status of both commands that says that nothing has changed.
	// Default: none. Bounds: up to 255.
	Refused int `yaml:"refused"`
}

// Writer runs the store and delete commands.
type Writer struct {
	source        *Source
	store, delete program
	refused       int
}

// NewWriter validates the configuration and finds the programs. They get the source's
// environment and timeout.
func (s *Source) NewWriter(cfg WriteConfig) (*Writer, error) {
	if cfg.Refused < 0 || cfg.Refused > 255 {
		return nil, fmt.Errorf("exec origin: refused status %d: give 1 to 255, or zero for none", cfg.Refused)
	}
	store, err := find("store", cfg.Store, s.env)
	if err != nil {
		return nil, err
	}
	remove, err := find("delete", cfg.Delete, s.env)
	if err != nil {
		return nil, err
	}
	return &Writer{s, store, remove, cfg.Refused}, nil
}

// Store runs the store command.
func (w *Writer) Store(ctx context.Context, key []byte, v loader.Value) error {
	return w.run(ctx, w.store, key, bytes.NewReader(v.Bytes))
}

// Delete runs the delete command.
func (w *Writer) Delete(ctx context.Context, key []byte) error {
	return w.run(ctx, w.delete, key, nil)
}

func (w *Writer) run(ctx context.Context, p program, key []byte, in io.Reader) error {
	arg, err := p.argument(key)
	if err != nil {
		return fmt.Errorf("%w: %w", loader.ErrNotWritten, err)
	}
	ctx, cancel := context.WithTimeout(ctx, w.source.cfg.Timeout)
	defer cancel()
	begun, err := p.run(ctx, in, io.Discard, arg)
	var exit *exec.ExitError
	if err != nil && (!begun || w.refused != 0 && errors.As(err, &exit) && exit.ExitCode() == w.refused) {
		return fmt.Errorf("%w: %w", loader.ErrNotWritten, err)
	}
	return err
}
