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

	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"
)

// Supported says that this system has shared regions.
const Supported = true

// fallback is where regions lie if the socket's folder is on a disk.
const fallback = "/dev/shm"

// File is a region's file, which this process has made. It stays the same size, and no other
// user can open it. It is locked while this process lives, so that others know what a killed
// process has left.
type File struct {
	Path string
	ID   uint64
	fd   int
	mem  memory
}

// namePrefix begins the names of all regions. The hash of a socket's path and a region's id follow.
const namePrefix = "cachesidecar-"

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
	return fmt.Sprintf(namePrefix+"%016x-", xxh3.HashString(path)), err
}

// Possible returns why there is no place for the regions of a socket, or nil.
func Possible(socket string) error {
	if len(folders(socket)) == 0 {
		return fmt.Errorf("neither the folder of %s nor %s is a tmpfs", socket, fallback)
	}
	return nil
}

// Create makes a region of a size for a socket. Every page is allocated.
func Create(socket string, size int64) (*File, error) {
	name, err := prefix(socket)
	if err = errors.Join(err, Possible(socket)); err != nil {
		return nil, err
	}
	for _, dir := range folders(socket) {
		var f *File
		f, err = create(filepath.Join(dir, name), size)
		if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, unix.EROFS) {
			return f, err
		}
	}
	return nil, err
}

// create makes a region whose path begins with name.
func create(name string, size int64) (f *File, err error) {
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
		err = f.fill(f.fd, size-size%int64(os.Getpagesize()))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path, errors.Join(err, f.Remove()))
	}
	return f, nil
}

// fill allocates and maps the file.
func (f *File) fill(fd int, size int64) (err error) {
	if err := unix.Fallocate(fd, 0, 0, size); err != nil {
		return fmt.Errorf("%d bytes: %w", size, err)
	}
	if f.mem, err = unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
		f.mem.word(atID).Store(f.ID)
		runtime.AddCleanup(f, unmap, f.mem)
	}
	return err
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

// Used reports whether a process has the region open or mapped, or has a descriptor of it on its
// way. It is true if the system does not tell.
func (f *File) Used() bool {
	if _, err := unix.FcntlInt(uintptr(f.fd), unix.F_SETLEASE, unix.F_WRLCK); err != nil { // there are others
		return true
	}
	_, _ = unix.FcntlInt(uintptr(f.fd), unix.F_SETLEASE, unix.F_UNLCK)
	return false
}

// Remove removes the file. The mapping ends once the Writer has ended the region, if there is
// one, and nothing uses it any more. A second call does nothing.
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
