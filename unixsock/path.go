package unixsock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// EnvPath is the environment variable that names the socket.
const EnvPath = "CACHESIDECAR_SOCKET"

const (
	folder = "cachesidecar"
	file   = "cachesidecar.sock"
)

// MaxPath is the longest path that fits into a socket address, in bytes: 107 on Linux,
// 103 on Darwin.
const MaxPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// Candidates returns the paths where a socket may be if none is configured, in order of
// preference.
func Candidates() []string {
	if p := os.Getenv(EnvPath); p != "" {
		return []string{p}
	}
	dirs := []string{filepath.Join("/run", folder)}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		dirs = append(dirs, filepath.Join(d, folder))
	}
	dirs = append(dirs, filepath.Join("/tmp", fmt.Sprintf("%s-%d", folder, os.Getuid())))
	for i, d := range dirs {
		dirs[i] = filepath.Join(d, file)
	}
	return dirs
}

// Find returns the first candidate at which there is a socket, for a client to connect
// to. It returns an explicit path unchanged. If none is found, and this process may not look at
// a candidate, the error is a PermissionError.
func Find(explicit string) (string, error) {
	if explicit != "" {
		return explicit, nil
	}
	paths := Candidates()
	var closed error
	for i, p := range paths {
		if shared := i > 0 && i == len(paths)-1; shared && trusted(filepath.Dir(p)) != nil {
			continue // another user's folder in /tmp
		}
		fi, err := os.Stat(p)
		if err == nil && fi.Mode()&fs.ModeSocket != 0 {
			return p, nil
		}
		if closed == nil && errors.Is(err, fs.ErrPermission) {
			closed = withRemedy(p, err)
		}
	}
	if closed != nil {
		return "", closed
	}
	return "", fmt.Errorf("no socket found at %s: is the sidecar running? "+
		"Start it with \"cachesidecar run\", or name its socket with --socket or $%s",
		strings.Join(paths, ", "), EnvPath)
}

// choose returns the path for a server's socket: the explicit path, else the first
// candidate in a writable folder. It makes the folders of candidates if they are missing.
func choose(explicit string) (string, error) {
	if explicit != "" {
		return explicit, nil
	}
	if p := os.Getenv(EnvPath); p != "" {
		return p, nil
	}
	var reasons []string
	for i, p := range Candidates() {
		dir := filepath.Dir(p)
		err := makeFolder(dir, i == len(Candidates())-1)
		if err == nil {
			err = writable(dir)
		}
		if err == nil {
			return p, nil
		}
		reasons = append(reasons, err.Error())
	}
	return "", fmt.Errorf("no folder for the socket can be written (%s): name a path with --socket",
		strings.Join(reasons, "; "))
}

// Expected returns the path at which a server without a configured path would listen. It
// makes nothing; "" if there is no such path.
func Expected() string {
	paths := Candidates()
	for i, p := range paths {
		dir, shared := filepath.Dir(p), len(paths) > 1 && i == len(paths)-1
		_, err := os.Lstat(dir)
		switch {
		case len(paths) == 1: // named by the environment
		case errors.Is(err, fs.ErrNotExist):
			if writable(filepath.Dir(dir)) != nil {
				continue
			}
		case shared && trusted(dir) != nil, writable(dir) != nil:
			continue
		}
		return p
	}
	return ""
}

// makeFolder makes the folder of a candidate if it is missing. The last candidate's
// folder is in a place where other users can write too.
func makeFolder(dir string, last bool) error {
	if last {
		return ownFolder(dir)
	}
	if err := os.Mkdir(dir, 0o755); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// remakeFolder makes the folder of a socket again, if choose has made it.
func remakeFolder(explicit, path string) error {
	if explicit == "" && os.Getenv(EnvPath) == "" {
		list := Candidates()
		if err := makeFolder(filepath.Dir(path), path == list[len(list)-1]); err != nil {
			return err
		}
	}
	return isFolder(path)
}

// ownFolder makes a folder in a place where other users can write too. It accepts an
// existing folder only if that is no link, belongs to this user and is closed to others.
func ownFolder(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if err == nil || !errors.Is(err, fs.ErrExist) {
		return err
	}
	return trusted(dir)
}

func trusted(dir string) error {
	fi, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	switch {
	case !fi.IsDir():
		return fmt.Errorf("%s is no folder: remove it", dir)
	case !ok || int(st.Uid) != os.Getuid():
		return fmt.Errorf("%s belongs to another user", dir)
	case fi.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s is open to others: chmod 0700 it", dir)
	}
	return nil
}

func writable(dir string) error {
	if err := syscall.Access(dir, 2); err != nil { // W_OK
		return &fs.PathError{Op: "write to", Path: dir, Err: err}
	}
	return nil
}
