package shm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds of the files that EndOthers looks at: others may put files with such names into
// /dev/shm.
const (
	maxLooked = 1 << 16 // in a folder; any user's
	maxStale  = 1 << 10 // of this user's other sockets
)

// regionName matches the names of regions.
var regionName = regexp.MustCompile(`^` + namePrefix + `[0-9a-f]{16}-[0-9a-f]{16}$`)

// EndOthers ends the regions that earlier sidecars of a socket have left, and erases them. No
// such sidecar runs. After an error apps may read from such a region until its last certificate
// is too old. EndOthers also removes what killed sidecars of this user's other sockets have
// left. Files of other users but root are none of this socket's sidecars.
func EndOthers(socket string) (ended int, err error) {
	name, err := prefix(socket)
	if err != nil {
		return 0, err
	}
	for _, dir := range folders(socket) {
		mine, others, e := left(dir, name, maxLooked)
		err = errors.Join(err, e)
		for _, path := range mine {
			if e := endOther(path, true); e == nil {
				ended++
			} else if err == nil { // one is enough
				err = e
			}
		}
		for _, path := range others {
			_ = endOther(path, false) // not this socket's: no app of it reads there
		}
	}
	return ended, err
}

// left returns the paths of this user's regions in a folder: those whose names begin with name,
// and others.
func left(dir, name string, most int) (mine, others []string, err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	defer d.Close()
	var roots error
	for looked := 0; ; {
		list, err := d.Readdirnames(1024)
		if err == io.EOF {
			return mine, others, roots
		} else if err != nil {
			return mine, others, err
		}
		for _, entry := range list {
			if !regionName.MatchString(entry) {
				continue
			}
			if looked++; looked > most {
				return mine, others, fmt.Errorf("%s has more than %d files that are named like regions: "+
					"remove those of other users", dir, most)
			}
			var st unix.Stat_t
			switch err := unix.Fstatat(int(d.Fd()), entry, &st, unix.AT_SYMLINK_NOFOLLOW); {
			case err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG:
			case int(st.Uid) != os.Geteuid():
				if st.Uid == 0 && strings.HasPrefix(entry, name) {
					roots = fmt.Errorf("%s belongs to root: remove it", filepath.Join(dir, entry))
				}
			case strings.HasPrefix(entry, name):
				mine = append(mine, filepath.Join(dir, entry))
			case len(others) < maxStale:
				others = append(others, filepath.Join(dir, entry))
			}
		}
	}
}

var errLives = errors.New("a process has it")

// endOther ends one region, erases it and removes its file, even if a process has it locked.
func endOther(path string, evenLocked bool) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s is not this user's file: remove it", path)
	}
	if !evenLocked && unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil {
		return errLives
	}
	if st.Size >= MinSize { // else no reader takes it
		if err := wipe(fd, st.Size); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return os.Remove(path)
}

// wipe closes a region of any layout, and zeroes all but its header.
func wipe(fd int, size int64) error {
	var word [8]byte
	order.PutUint64(word[:], Closed)
	if _, err := unix.Pwrite(fd, word[:], atState); err != nil {
		return err
	}
	zeros := make([]byte, 1<<20)
	for at := int64(atNames); at < size; {
		n, err := unix.Pwrite(fd, zeros[:min(int64(len(zeros)), size-at)], at)
		if err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}
