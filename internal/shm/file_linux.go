package shm

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"
)

// Supported says that this system has shared regions.
const Supported = true

// fallback is where regions lie if the socket's folder is on a disk.
const fallback = "/dev/shm"

// File is a region's file, which this process has made. It stays the same size. It is locked
// while this process lives, so that others know what a killed process has left.
type File struct {
	Path string
	ID   uint64
	fd   int
	mem  memory
}

// family begins the names of all regions.
const family = "cachesidecar-"

// folders returns where the regions of a socket may lie.
func folders(socket string) (list []string) {
	for _, dir := range []string{filepath.Dir(socket), fallback} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Type == unix.TMPFS_MAGIC {
			list = append(list, dir)
		}
	}
	return list
}

// prefix returns how the names of a socket's regions begin.
func prefix(socket string) (string, error) {
	path, err := filepath.Abs(socket)
	return fmt.Sprintf(family+"%016x-", xxh3.HashString(path)), err
}

// Create makes a region of a size for a socket. A process that may connect to the socket may
// read it. Every page is allocated.
func Create(socket string, size int64) (*File, error) {
	name, err := prefix(socket)
	if err != nil {
		return nil, err
	}
	err = fmt.Errorf("neither the folder of %s nor %s is a tmpfs", socket, fallback)
	for _, dir := range folders(socket) {
		var f *File
		f, err = create(filepath.Join(dir, name), size, socket)
		if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, unix.EROFS) {
			return f, err
		}
	}
	return nil, err
}

// create makes a region whose path begins with name.
func create(name string, size int64, socket string) (f *File, err error) {
	for again := true; again; { // a sidecar that starts may take the file for one that was left
		var id [8]byte
		_, _ = rand.Read(id[:]) // never fails
		f = &File{ID: binary.LittleEndian.Uint64(id[:])}
		f.Path = fmt.Sprintf("%s%016x", name, f.ID)
		const flags = unix.O_RDWR | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
		if f.fd, err = unix.Open(f.Path, flags, 0o600); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		var open, there unix.Stat_t
		err = errors.Join(unix.Flock(f.fd, unix.LOCK_EX), unix.Fstat(f.fd, &open))
		if again = err == nil && (unix.Stat(f.Path, &there) != nil || there.Ino != open.Ino); again {
			_ = unix.Close(f.fd)
		}
	}
	if err == nil {
		err = f.fill(f.fd, size-size%int64(os.Getpagesize()), socket)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path, errors.Join(err, f.Remove()))
	}
	return f, nil
}

// fill allocates and maps the file.
func (f *File) fill(fd int, size int64, socket string) (err error) {
	if err := unix.Fallocate(fd, 0, 0, size); err != nil {
		return fmt.Errorf("%d bytes: %w", size, err)
	}
	if err := dress(fd, socket); err != nil {
		return err
	}
	if f.mem, err = unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
		f.mem.word(atID).Store(f.ID)
	}
	return err
}

// dress gives a file the group of a socket, and its mode. The right to write to a socket,
// which is to connect, becomes the right to read the file.
func dress(fd int, socket string) error {
	var st unix.Stat_t
	if err := unix.Stat(socket, &st); err != nil {
		return err
	}
	if err := unix.Fchown(fd, -1, int(st.Gid)); err != nil {
		return err
	}
	return unix.Fchmod(fd, st.Mode&0o222<<1|0o600)
}

// Open opens the region for an app, for reading only.
func (f *File) Open() (*os.File, error) {
	// A link is not followed, and a pipe must not block.
	file, err := os.OpenFile(f.Path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	var head [8]byte
	fi, err := file.Stat()
	if err == nil && fi.Mode().IsRegular() {
		_, err = file.ReadAt(head[:], atID)
	}
	if err != nil || order.Uint64(head[:]) != f.ID {
		return nil, errors.Join(fmt.Errorf("%s is another file now: restart the sidecar", f.Path), err, file.Close())
	}
	return file, nil
}

// Remove removes the file. The mapping ends once the Writer has ended the region, and nothing
// uses it any more. A second call does nothing.
func (f *File) Remove() error {
	err := os.Remove(f.Path)
	if os.IsNotExist(err) {
		err = nil
	}
	if f.fd >= 0 {
		err = errors.Join(err, unix.Close(f.fd))
		f.fd = -1
	}
	return err
}

// unmap ends a mapping.
func unmap(m memory) { _ = unix.Munmap(m) }

// EndOthers ends the regions that earlier sidecars of a socket have left. No such sidecar
// runs. After an error apps may read from such a region until its last certificate is too
// old. EndOthers also removes what killed sidecars of this user's other sockets have left.
func EndOthers(socket string) (ended int, err error) {
	name, err := prefix(socket)
	if err != nil {
		return 0, err
	}
	for _, dir := range folders(socket) {
		list, e := os.ReadDir(dir)
		err = errors.Join(err, e)
		for _, entry := range list {
			path := filepath.Join(dir, entry.Name())
			switch {
			case strings.HasPrefix(entry.Name(), name):
				if e := endOther(path, true); e != nil {
					err = errors.Join(err, e)
				} else {
					ended++
				}
			case strings.HasPrefix(entry.Name(), family):
				_ = endOther(path, false) // not this socket's: no app of it reads there
			}
		}
	}
	return ended, err
}

var errLives = errors.New("a process has it")

// endOther ends one region and removes its file, even if a process has it locked.
func endOther(path string, evenLocked bool) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	var word [8]byte
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
		order.PutUint64(word[:], Closed)
		if _, err := unix.Pwrite(fd, word[:], atState); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return os.Remove(path)
}

// Map maps a region that was received from a sidecar, and returns its reader. The mapping
// ends with the reader. Map does not close the file.
func Map(file *os.File) (*Reader, error) {
	st, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() < MinSize || st.Size() > 1<<40 {
		return nil, fmt.Errorf("the shared memory is %v of %d bytes", st.Mode(), st.Size())
	}
	m, err := unix.Mmap(int(file.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	_ = unix.Madvise(m, unix.MADV_DONTDUMP) // not in core dumps; best effort
	r, err := NewReader(m)
	if err != nil {
		return nil, errors.Join(err, unix.Munmap(m))
	}
	runtime.AddCleanup(r, unmap, r.mem)
	return r, nil
}
