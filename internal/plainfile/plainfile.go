// Package plainfile reads the short files that a configuration or a flag names:
// settings, and secrets. It reads regular files only, since a pipe may block and a
// device may never end, and no more than a bound.
//
// Its errors do not name the path: the caller's do, with the setting that has it. It
// starts no goroutine and keeps nothing.
package plainfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// Read returns the content of a file of at most so many bytes.
func Read(path string, most int) ([]byte, error) { return read(path, most, nil) }

// Secret is Read of a file that holds a secret. The owner must be this process's user
// or root, the group may read it at most, and others may do nothing with it. Symbolic
// links are followed; the file at their end counts.
func Secret(path string, most int) ([]byte, error) {
	return read(path, most, func(i fs.FileInfo) error { return closed(i, "it holds a secret", "read or change", 0o027) })
}

// Trusted is Read of a file that others may read, and that this process's user and
// root alone may change.
func Trusted(path string, most int) ([]byte, error) {
	return read(path, most, func(i fs.FileInfo) error { return closed(i, "it says who is trusted", "change", 0o022) })
}

func read(path string, most int, check func(fs.FileInfo) error) ([]byte, error) {
	// Stat goes first, since to open some devices is to use them already; O_NONBLOCK
	// is for a pipe that takes the file's place in between.
	if info, err := os.Stat(path); err != nil {
		return nil, plain(err)
	} else if err := regular(info); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, plain(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, plain(err)
	}
	if err := regular(info); err != nil {
		return nil, err
	}
	if check != nil {
		if err := check(info); err != nil {
			return nil, err
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err != nil {
		return nil, plain(err)
	}
	if len(b) > most {
		return nil, fmt.Errorf("it has more than %d bytes", most)
	}
	return b, nil
}

func regular(info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return errors.New("it is no regular file")
	}
	return nil
}

// ErrExposed: a file that others may read or change, and must not. The error says
// what to do.
var ErrExposed = errors.New("others may reach it")

type exposed string

func (e exposed) Error() string   { return string(e) }
func (exposed) Is(err error) bool { return err == ErrExposed }

// Foreign is an ErrExposed: the file belongs to another user than this process's.
type Foreign struct {
	UID int // the file's
	exposed
}

// closed refuses a file with which others could do what they must not.
func closed(info fs.FileInfo, why, what string, bits fs.FileMode) error {
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return Foreign{int(st.Uid), exposed(fmt.Sprintf("%s and belongs to uid %d: chown it to uid %d, as which this process runs, or to root",
			why, st.Uid, os.Geteuid()))}
	}
	if mode := info.Mode().Perm(); mode&bits != 0 {
		return exposed(fmt.Sprintf("%s and has mode %04o, which lets other users %s it: chmod 0%03o it, or 0600",
			why, mode, what, mode&^bits))
	}
	return nil
}

// plain leaves the path to the caller's own text.
func plain(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
