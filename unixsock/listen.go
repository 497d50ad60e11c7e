package unixsock

import (
	"cmp"
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

	"golang.org/x/sys/unix"
)

// Config configures the path of the socket and access to it.
type Config struct {
	Path   string            // default: the first of Candidates in a writable folder
	Mode   fs.FileMode       // default 0660
	Group  string            // name or number; default: the process's group
	Passed *net.UnixListener // by systemd, which has made its file: nothing else counts; nil: none
}

// DefaultMode lets the owner and the group connect.
const DefaultMode fs.FileMode = 0o660

// ErrRunning means that another process serves the path.
var ErrRunning = errors.New("already running")

// Listener is a listening socket and its file. Close removes the file, unless the socket
// was inherited.
type Listener struct {
	cfg       Config
	path      string
	inherited bool

	mu     sync.Mutex
	ln     *net.UnixListener
	own    fs.FileInfo // the file as it was made; nil if it could not be read
	lock   *os.File    // held while the listener is open; nil if the socket was inherited
	closed bool
}

// Path returns the path that clients connect to.
func (l *Listener) Path() string { return l.path }

// Addr returns the same path as an address.
func (l *Listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Accept waits for the next connection.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		ln := l.present()
		nc, err := ln.Accept()
		if err == nil || ln == l.present() {
			return nc, err
		}
	}
}

func (l *Listener) present() *net.UnixListener {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ln
}

// Listen opens the socket, or takes the socket that systemd has passed on.
// It replaces the socket of a sidecar that has ended. If a live process serves the path,
// it returns ErrRunning.
func Listen(cfg Config) (*Listener, error) {
	if cfg.Passed != nil {
		return inherited(cfg.Passed), nil
	}
	path, err := choose(cfg.Path)
	if err != nil {
		return nil, err
	}
	if len(path) > MaxPath {
		return nil, fmt.Errorf("socket path %q has %d bytes, at most %d fit into a socket address: "+
			"choose a shorter one", path, len(path), MaxPath)
	}
	if err := isFolder(path); err != nil {
		return nil, err
	}
	lock, err := takeLock(path)
	if err != nil {
		return nil, err
	}
	l := &Listener{cfg: cfg, path: path, lock: lock}
	if err := l.listen(); err != nil {
		_ = lock.Close()
		return nil, err
	}
	return l, nil
}

// isFolder returns an error if the folder of a socket is missing or is not a folder.
func isFolder(path string) error {
	dir := filepath.Dir(path)
	switch fi, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the folder of socket %s does not exist: create %s or choose another path with --socket",
			path, dir)
	case err != nil:
		return fmt.Errorf("socket %s: %w", path, err)
	case !fi.IsDir():
		return fmt.Errorf("socket %s: %s is no folder", path, dir)
	}
	return nil
}

// listen makes the socket and its file. The lock must be held.
func (l *Listener) listen() error {
	gid := -1
	if l.cfg.Group != "" {
		var err error
		if gid, err = groupID(l.cfg.Group); err != nil {
			return err
		}
	}
	if err := removeStale(l.path); err != nil {
		return err
	}
	// No other user may connect before mode and group are set.
	ln, err := bind(l.path)
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w", l.path, err)
	}
	ln.SetUnlinkOnClose(false) // Close removes the file, while it holds the lock
	own, err := os.Lstat(l.path)
	if err == nil {
		err = dress(l.path, cmp.Or(l.cfg.Mode, DefaultMode), gid)
	}
	if err != nil {
		if own != nil && liesAt(own, l.path) {
			_ = os.Remove(l.path)
		}
		_ = ln.Close()
		return err
	}
	l.ln, l.own = ln, own
	return nil
}

// dress sets the group and mode of the socket's file.
func dress(path string, mode fs.FileMode, gid int) error {
	if gid >= 0 {
		if err := os.Lchown(path, -1, gid); err != nil {
			return fmt.Errorf("cannot give socket %s to group %d: %w", path, gid, err)
		}
	}
	err := unix.Fchmodat(unix.AT_FDCWD, path, uint32(mode), unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.EOPNOTSUPP) { // Linux before 6.6; or a link, which has no mode
		if fi, e := os.Lstat(path); e == nil && fi.Mode()&fs.ModeSymlink == 0 {
			err = os.Chmod(path, mode)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot set mode %o of socket %s: %w", mode, path, err)
	}
	return nil
}

// Keep checks whether the path still leads to this socket. If it does not, Keep makes the
// socket anew, unless another process owns the path. Open connections stay, and new
// clients find the new socket. The result made tells whether Keep has made it; an error
// tells why it could not. The caller may try again later.
func (l *Listener) Keep() (made bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.own == nil {
		return false, nil
	}
	there := liesAt(l.own, l.path)
	switch {
	case l.inherited && !there:
		return false, fmt.Errorf("the file of the socket that systemd has passed on is gone from %s: "+
			"restart its socket unit", l.path)
	case there && (l.lock == nil || isAt(l.lock, lockName(l.path))):
		return false, nil
	}
	if !there {
		if err := remakeFolder(l.cfg.Path, l.path); err != nil {
			return false, err
		}
	}
	// If the lock file is gone too, take it first. If another sidecar has taken it
	// before, that sidecar has found this socket and ends, or has made its own socket.
	if !isAt(l.lock, lockName(l.path)) {
		lock, err := takeLock(l.path)
		if err != nil {
			if there {
				err = nil
			}
			return false, err
		}
		_ = l.lock.Close()
		l.lock = lock
	}
	if there {
		return false, nil
	}
	old := l.ln
	if err := l.listen(); err != nil {
		return false, err
	}
	_ = old.Close()
	return true, nil
}

// Close stops listening, removes the socket's file and lets the next sidecar start. It
// does not remove a file at the path that this listener has not made.
func (l *Listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	var err error
	// While the socket is open, the system does not reuse its file's inode number.
	if !l.inherited && liesAt(l.own, l.path) {
		if err = os.Remove(l.path); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	err = errors.Join(err, l.ln.Close())
	if l.lock != nil {
		if isAt(l.lock, lockName(l.path)) {
			_ = os.Remove(lockName(l.path))
		}
		_ = l.lock.Close()
	}
	return err
}

// removeStale removes a socket that no process serves any more.
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
		return fmt.Errorf("stale socket %s belongs to another user: remove it or choose another path with --socket",
			path)
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

// inherited returns the socket that systemd has passed on.
func inherited(ln *net.UnixListener) *Listener {
	ln.SetUnlinkOnClose(false)
	l := &Listener{path: ln.Addr().String(), ln: ln, inherited: true}
	// Else the socket has no file, or none at this path.
	if fi, err := os.Lstat(l.path); err == nil && fi.Mode()&fs.ModeSocket != 0 {
		l.own = fi
	}
	return l
}
