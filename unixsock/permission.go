package unixsock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// A PermissionError is the error of a socket that this process may not open. It says which group
// may, and how to get into it.
type PermissionError struct {
	Path string
	Err  error
	text string
}

func (e *PermissionError) Error() string { return e.text }

// Unwrap returns the system's error.
func (e *PermissionError) Unwrap() error { return e.Err }

// withRemedy returns a PermissionError if err says that permission is denied, else err.
func withRemedy(path string, err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return &PermissionError{path, err, path + ": permission denied: " + remedy(path)}
}

// remedy says what keeps this process from the socket at a path, a folder or the file itself,
// and what to do.
func remedy(path string) string {
	thing, what, bits, remedy := path, "the socket", fs.FileMode(0o020),
		"give it to the group of its apps (socket_group and socket_mode; SocketGroup= and SocketMode= of a socket unit)"
	for _, dir := range folders(path) {
		if errors.Is(syscall.Access(dir, 1), syscall.EACCES) { // X_OK
			thing, what, bits, remedy = dir, "the folder "+dir, 0o010, "let all search it: chmod a+x "+dir
			break
		}
	}
	fi, err := os.Stat(thing)
	if err != nil {
		return err.Error()
	}
	gid := int(fi.Sys().(*syscall.Stat_t).Gid)
	of := fmt.Sprintf("%s belongs to group %s and has mode %04o", what, groupName(gid), fi.Mode().Perm())
	own, _ := os.Getgroups()
	in := slices.Contains(append(own, os.Getegid()), gid)
	switch {
	case fi.Mode()&bits == 0 || gid == 0 && !in: // no user should become root for it
		return of + ": " + remedy
	case in:
		return of + ", and this process is in that group: look at its owner, access lists and security modules"
	}
	name := userName()
	of += fmt.Sprintf(", and user %s is not in it: usermod -aG %s %s, and start this program anew from a new login, "+
		"since a process has its groups from its start", name, groupName(gid), name)
	if thing != path {
		of += "; or " + remedy
	}
	return of
}

// folders returns the folders on the way to a path, the outermost first.
func folders(path string) (list []string) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil
	}
	for dir := filepath.Dir(abs); ; dir = filepath.Dir(dir) {
		list = append(list, dir)
		if dir == filepath.Dir(dir) {
			break
		}
	}
	slices.Reverse(list)
	return list
}

// groupName returns the name of a group, or its number.
func groupName(gid int) string {
	if g, err := user.LookupGroupId(strconv.Itoa(gid)); err == nil {
		return g.Name
	}
	return strconv.Itoa(gid)
}

// userName returns the name of the user of this process, or its number.
func userName() string {
	uid := strconv.Itoa(os.Geteuid())
	if u, err := user.LookupId(uid); err == nil && !strings.ContainsAny(u.Username, " \t\n") {
		return u.Username
	}
	return uid
}
