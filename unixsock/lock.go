package unixsock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// takeLock makes sure that only one process at a time replaces and serves a path. Without
// it, two processes that start at the same time could remove each other's socket.
func takeLock(path string) (*os.File, error) {
	name := lockName(path)
	for {
		// No link is followed, since it could lead to any file. A pipe must not block.
		f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
		switch {
		case errors.Is(err, unix.ELOOP):
			return nil, fmt.Errorf("lock file %s is a symbolic link: remove it, or choose another path with --socket",
				name)
		case err != nil:
			return nil, fmt.Errorf("cannot make socket %s: %w: its folder must be writable", path, err)
		}
		if err := ownFile(f); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("lock file %s %w: remove it, or choose another path with --socket", name, err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("%w: another sidecar serves %s", ErrRunning, path)
			}
			return nil, fmt.Errorf("cannot lock %s: %w", name, err)
		}
		// The previous owner may have removed the file between our open and our lock.
		if isAt(f, name) {
			return f, nil
		}
		_ = f.Close()
	}
}

func lockName(path string) string { return path + ".lock" }

// ownFile refuses a file that is not a regular file of this user. Another user could hold
// the lock of its own file forever.
func ownFile(f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return errors.New("is no regular file")
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() {
		return errors.New("belongs to another user")
	}
	return nil
}

// isAt reports whether a file still is at a path.
func isAt(f *os.File, path string) bool {
	fi, err := f.Stat()
	return err == nil && liesAt(fi, path)
}

func liesAt(fi fs.FileInfo, path string) bool {
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(fi, there)
}
