package unixsock

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// Config says where the socket lies and who may open it.
type Config struct {
	Path  string      // default: the first of Candidates whose folder can be written
	Mode  fs.FileMode // default 0660
	Group string      // name or number; default: the process's
}

// DefaultMode lets the owner and the group connect.
const DefaultMode fs.FileMode = 0o660

// ErrRunning: another sidecar serves the path.
var ErrRunning = errors.New("already running")

// Listener is a listening socket. Close removes its file, unless the socket
// was inherited.
type Listener struct {
	*net.UnixListener
	path string
	lock *os.File // held while we serve; nil where the socket was inherited
	once sync.Once
	err  error
}

// Path returns where clients connect.
func (l *Listener) Path() string { return l.path }

// Listen opens the socket, or takes the one that systemd has passed on
// (LISTEN_FDS). The socket of a sidecar that is gone is replaced; that of one
// that lives is ErrRunning.
func Listen(cfg Config) (*Listener, error) {
	if l, err := inherited(); l != nil || err != nil {
		return l, err
	}
	path, err := choose(cfg.Path)
	if err != nil {
		return nil, err
	}
	if len(path) > MaxPath {
		return nil, fmt.Errorf("socket path %q has %d bytes, at most %d fit into a socket address: choose a shorter one", path, len(path), MaxPath)
	}
	dir := filepath.Dir(path)
	switch fi, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the folder of socket %s does not exist: create %s or choose another path with --socket", path, dir)
	case err != nil:
		return nil, fmt.Errorf("socket %s: %w", path, err)
	case !fi.IsDir():
		return nil, fmt.Errorf("socket %s: %s is no folder", path, dir)
	}
	gid := -1
	if cfg.Group != "" {
		if gid, err = groupID(cfg.Group); err != nil {
			return nil, err
		}
	}
	lock, err := takeLock(path)
	if err != nil {
		return nil, err
	}
	l, err := listen(path, lock, cfg.Mode, gid)
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	return l, nil
}

func listen(path string, lock *os.File, mode fs.FileMode, gid int) (*Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// Nobody may connect before mode and group are set.
	mask := syscall.Umask(0o177)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	syscall.Umask(mask)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	ln.SetUnlinkOnClose(false) // Close does it, while it holds the lock
	l := &Listener{UnixListener: ln, path: path, lock: lock}
	if gid >= 0 {
		if err := os.Chown(path, -1, gid); err != nil {
			_ = l.Close()
			return nil, fmt.Errorf("cannot give socket %s to group %d: %w", path, gid, err)
		}
	}
	if mode == 0 {
		mode = DefaultMode
	}
	if err := os.Chmod(path, mode); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("cannot set mode %o of socket %s: %w", mode, path, err)
	}
	return l, nil
}

// Close stops listening, removes the file and lets the next sidecar in.
func (l *Listener) Close() error {
	l.once.Do(func() {
		l.err = l.UnixListener.Close()
		if l.lock == nil {
			return
		}
		if err := os.Remove(l.path); err != nil && !errors.Is(err, fs.ErrNotExist) && l.err == nil {
			l.err = err
		}
		_ = os.Remove(l.lock.Name())
		_ = l.lock.Close()
	})
	return l.err
}

// takeLock makes sure that one process at a time replaces and serves a path.
// Without it two that start at once could each remove the other's socket.
func takeLock(path string) (*os.File, error) {
	name := path + ".lock"
	for {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, fmt.Errorf("cannot make socket %s: %w: its folder must be writable", path, err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("%w: another sidecar serves %s", ErrRunning, path)
			}
			return nil, fmt.Errorf("cannot lock %s: %w", name, err)
		}
		// The one before us may have removed the file between our open and lock.
		mine, err1 := f.Stat()
		there, err2 := os.Stat(name)
		if err1 == nil && err2 == nil && os.SameFile(mine, there) {
			return f, nil
		}
		_ = f.Close()
	}
}

// removeStale removes a socket that nobody serves any more.
func removeStale(path string) error {
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("socket %s: %w", path, err)
	case fi.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("%s exists and is no socket: remove it or choose another path with --socket", path)
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close()
		return fmt.Errorf("%w: another process serves %s", ErrRunning, path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("socket %s exists, and whether it is served cannot be told: %w", path, err)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Getuid() {
		return fmt.Errorf("stale socket %s belongs to another user: remove it or choose another path with --socket", path)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("cannot remove stale socket: %w", err)
	}
	return nil
}

func groupID(name string) (int, error) {
	if id, err := strconv.Atoi(name); err == nil && id >= 0 {
		return id, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("socket group %q: %w", name, err)
	}
	return strconv.Atoi(g.Gid)
}

// inherited returns the socket that systemd has passed on, if it has.
func inherited() (*Listener, error) {
	lns, err := activation.Listeners()
	if err != nil || len(lns) == 0 {
		return nil, err
	}
	if len(lns) > 1 {
		return nil, fmt.Errorf("LISTEN_FDS passes %d sockets on, one is wanted", len(lns))
	}
	ln, ok := lns[0].(*net.UnixListener)
	if !ok {
		return nil, fmt.Errorf("LISTEN_FDS passes on a socket of kind %s, a Unix stream socket is wanted", lns[0].Addr().Network())
	}
	ln.SetUnlinkOnClose(false)
	return &Listener{UnixListener: ln, path: ln.Addr().String()}, nil
}
