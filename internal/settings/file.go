package settings

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// ReadFile returns the content of a short file that a setting or a flag names, of at most most
// bytes. It reads regular files only, since a pipe may block and a device may never end. Its
// errors do not name the path: the caller's errors do, together with the setting that has the
// path.
func ReadFile(path string, most int) ([]byte, error) { return readFile(path, most, nil) }

// ReadSecret is ReadFile for a file that contains a secret. The owner must be this process's user
// or root, the group may at most read it, and others must have no access. Symbolic links
// are followed; the rules apply to their target.
func ReadSecret(path string, most int) ([]byte, error) {
	return readFile(path, most, func(i fs.FileInfo) error {
		return closed(i, "it contains a secret", "read or change", 0o027)
	})
}

// ReadTrusted is ReadFile for a file that others may read, but that only this process's user and
// root may change.
func ReadTrusted(path string, most int) ([]byte, error) {
	return readFile(path, most, func(i fs.FileInfo) error {
		return closed(i, "it says what is trusted", "change", 0o022)
	})
}

func readFile(path string, most int, check func(fs.FileInfo) error) ([]byte, error) {
	// Stat comes first, since opening a device may already have an effect. O_NONBLOCK is
	// for a pipe that replaces the file in between.
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

// ErrExposed means that others may read or change a file, but must not. The error's text
// says what to do.
var ErrExposed = errors.New("others may reach it")

type exposed string

func (e exposed) Error() string   { return string(e) }
func (exposed) Is(err error) bool { return err == ErrExposed }

// Foreign is an ErrExposed: the file belongs to another user than this process's.
type Foreign struct {
	UID int // the file's owner
	exposed
}

// closed returns an error if other users have access that they must not have.
func closed(info fs.FileInfo, why, what string, bits fs.FileMode) error {
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return Foreign{int(st.Uid), exposed(fmt.Sprintf("%s and belongs to uid %d: chown it to uid %d, as which this "+
			"process runs, or to root",
			why, st.Uid, os.Geteuid()))}
	}
	if mode := info.Mode().Perm(); mode&bits != 0 {
		return exposed(fmt.Sprintf("%s and has mode %04o, which lets other users %s it: chmod 0%03o it, or 0600",
			why, mode, what, mode&^bits))
	}
	return nil
}

// plain removes the path from an error; the caller adds it to its own text.
func plain(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
