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

// Listener is a listening socket, and the file under which it is found. Close removes
// the file, unless the socket was inherited.
type Listener struct {
	cfg       Config
	path      string
	inherited bool

	mu     sync.Mutex
	ln     *net.UnixListener
	own    fs.FileInfo // the file, as it was made; nil is none that can be looked at
	lock   *os.File    // held while we serve; nil where the socket was inherited
	closed bool
}

// Path returns where clients connect.
func (l *Listener) Path() string { return l.path }

// Addr returns it too.
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

// isFolder says what is wrong with the folder of a socket.
func isFolder(path string) error {
	dir := filepath.Dir(path)
	switch fi, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the folder of socket %s does not exist: create %s or choose another path with --socket", path, dir)
	case err != nil:
		return fmt.Errorf("socket %s: %w", path, err)
	case !fi.IsDir():
		return fmt.Errorf("socket %s: %s is no folder", path, dir)
	}
	return nil
}

// listen makes the socket and its file, under the lock.
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
	// Nobody may connect before mode and group are set.
	ln, err := bind(l.path)
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w", l.path, err)
	}
	ln.SetUnlinkOnClose(false) // Close does it, while it holds the lock
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

// dress gives the socket's file its group and mode.
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

// Keep looks whether the path still leads here. If it does not, it makes the socket
// anew, unless another process holds the path: connections stay, and those to come find
// the new one. It says whether it has done so; an error says why it cannot, until the
// next try.
func (l *Listener) Keep() (made bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.own == nil {
		return false, nil
	}
	there := liesAt(l.own, l.path)
	switch {
	case l.inherited && !there:
		return false, fmt.Errorf("the file of the socket that systemd has passed on is gone from %s: restart its socket unit", l.path)
	case there && (l.lock == nil || isAt(l.lock, lockName(l.path))):
		return false, nil
	}
	if !there {
		if err := remakeFolder(l.cfg.Path, l.path); err != nil {
			return false, err
		}
	}
	// A lock that is gone too goes first. Where another sidecar is quicker, and holds it,
	// that one has found our socket and ends, or has made its own.
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

// Close stops listening, removes the file and lets the next sidecar in. What lies at
// the path and is not ours stays.
func (l *Listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	var err error
	// While the socket is open, its file's number is given to no other file.
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
	l := &Listener{path: ln.Addr().String(), ln: ln, inherited: true}
	if fi, err := os.Lstat(l.path); err == nil && fi.Mode()&fs.ModeSocket != 0 { // else it has no file, or not where we look
		l.own = fi
	}
	return l, nil
}
