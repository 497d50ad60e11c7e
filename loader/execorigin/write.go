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
	Store []string `yaml:"store" answers:"yes"`
	// Delete is the command that deletes a value. Required by write_through.
	Delete []string `yaml:"delete" answers:"yes"`
	// Refused is the exit status of both commands that says that nothing has changed.
	// Default: none. Bounds: up to 255.
	Refused int `yaml:"refused" answers:"yes"`
}

// findWrites validates the settings of writes and finds their programs.
func (s *Source) findWrites() (err error) {
	cfg := &s.cfg.Write
	if cfg.Refused < 0 || cfg.Refused > 255 {
		return fmt.Errorf("exec origin: refused status %d: give 1 to 255, or zero for none", cfg.Refused)
	}
	if s.store, err = find("store", cfg.Store, s.env); err != nil {
		return err
	}
	s.delete, err = find("delete", cfg.Delete, s.env)
	return err
}

// Store runs the store command.
func (s *Source) Store(ctx context.Context, key []byte, v loader.Value) error {
	return s.write(ctx, s.store, key, bytes.NewReader(v.Bytes))
}

// Delete runs the delete command.
func (s *Source) Delete(ctx context.Context, key []byte) error {
	return s.write(ctx, s.delete, key, nil)
}

func (s *Source) write(ctx context.Context, p program, key []byte, in io.Reader) error {
	arg, err := p.argument(key)
	if err != nil {
		return fmt.Errorf("%w: %w", loader.ErrNotWritten, err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	begun, err := p.run(ctx, in, io.Discard, arg)
	var exit *exec.ExitError
	refused := s.cfg.Write.Refused
	if err != nil && (!begun || refused != 0 && errors.As(err, &exit) && exit.ExitCode() == refused) {
		return fmt.Errorf("%w: %w", loader.ErrNotWritten, err)
	}
	return err
}
