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

// MaxPath is the longest path that a socket address holds, in bytes: 107 on
// Linux, 103 on Darwin.
const MaxPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// Candidates lists where a socket may lie if nobody says where, in order of
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

// Find returns the first path at which there is a socket: what a client
// connects to. An explicit path is returned as it is.
func Find(explicit string) (string, error) {
	if explicit != "" {
		return explicit, nil
	}
	paths := Candidates()
	for i, p := range paths {
		if shared := i > 0 && i == len(paths)-1; shared && trusted(filepath.Dir(p)) != nil {
			continue // somebody else's folder in /tmp
		}
		if fi, err := os.Stat(p); err == nil && fi.Mode()&fs.ModeSocket != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("no socket found at %s: is the sidecar running? Start it with \"cachesidecar run\", or name its socket with --socket or $%s",
		strings.Join(paths, ", "), EnvPath)
}

// choose returns where a server puts its socket: the explicit path, else the
// first candidate whose folder it can write. It makes folders that are its own.
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
	return "", fmt.Errorf("no folder for the socket can be written (%s): name a path with --socket", strings.Join(reasons, "; "))
}

// makeFolder makes the folder of a candidate, if it is not there. The last candidate's
// is in a place where others can write too.
func makeFolder(dir string, last bool) error {
	if last {
		return ownFolder(dir)
	}
	if err := os.Mkdir(dir, 0o755); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// remakeFolder makes the folder of a socket again, where choose has made it.
func remakeFolder(explicit, path string) error {
	if explicit == "" && os.Getenv(EnvPath) == "" {
		list := Candidates()
		if err := makeFolder(filepath.Dir(path), path == list[len(list)-1]); err != nil {
			return err
		}
	}
	return isFolder(path)
}

// ownFolder makes a folder in a place where others can write too. One that is
// there already is trusted only if it is a real folder, ours and closed.
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
