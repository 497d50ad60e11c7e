package unixsock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// dials is the role of a process that connects and prints the error.
func dials() {
	path, err := Find(os.Getenv("UNIXSOCK_TEST_PATH"))
	if err == nil {
		_, err = Dial(context.Background(), path)
	}
	fmt.Println(errors.As(err, new(*PermissionError)), errors.Is(err, fs.ErrPermission), err)
}

// TestDenied checks what a process of another user is told that may not open the socket, or may
// not search a folder on the way: which group may, and how to get into it. A socket that it
// finds elsewhere is used.
func TestDenied(t *testing.T) {
	if os.Geteuid() != 0 {
		testenv.Needs(t, "only root can start processes of another user: run it as root")
	}
	const stranger, apps, others = 65_533, 65_532, 65_531 // without names
	dir, err := os.MkdirTemp("/tmp", "denied")
	testenv.Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	folder, socket := filepath.Join(dir, "cachesidecar"), filepath.Join(dir, "cachesidecar", "cachesidecar.sock")
	testenv.Must(t, os.Mkdir(folder, 0o755))
	ln, err := net.Listen("unix", socket)
	testenv.Must(t, err)
	defer ln.Close()
	program := filepath.Join(dir, "dials") // the test's own is in a folder that is closed to others
	self, err := os.Executable()
	testenv.Must(t, err)
	if b, err := os.ReadFile(self); err != nil {
		t.Fatal(err)
	} else if err := errors.Join(os.WriteFile(program, b, 0o755), os.Chmod(program, 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name                    string
		folderMode, mode        fs.FileMode
		folderGroup, group, gid int
		want                    string
	}{
		{"not in the group", 0o755, 0o660, 0, apps, others,
			"the socket belongs to group 65532 and has mode 0660, and user 65533 is not in it: usermod -aG 65532 65533, and start this program anew"},
		{"of root's group", 0o755, 0o660, 0, 0, others,
			"the socket belongs to group root and has mode 0660: give it to the group of its apps (socket_group and socket_mode; "},
		{"closed to the group", 0o755, 0o600, 0, apps, apps,
			"the socket belongs to group 65532 and has mode 0600: give it to the group of its apps (socket_group and socket_mode; "},
		{"a folder of another group", 0o750, 0o666, apps, apps, others,
			"the folder " + folder + " belongs to group 65532 and has mode 0750, and user 65533 is not in it: usermod -aG 65532 65533, and start this " +
				"program anew from a new login, since a process has its groups from its start; or let all search it: chmod a+x " + folder},
		{"a folder of root's group", 0o750, 0o666, 0, apps, others,
			"the folder " + folder + " belongs to group root and has mode 0750: let all search it: chmod a+x " + folder},
		{"a folder of its own", 0o700, 0o666, apps, apps, apps,
			"the folder " + folder + " belongs to group 65532 and has mode 0700: let all search it: chmod a+x " + folder},
		{"in the group", 0o750, 0o660, apps, apps, apps, "<nil>"},
	} {
		testenv.Must(t, errors.Join(os.Chown(folder, 0, tc.folderGroup), os.Chmod(folder, tc.folderMode), os.Chown(socket, 0, tc.group), os.Chmod(socket, tc.mode)))
		ways := map[string]string{"given": "UNIXSOCK_TEST_PATH=" + socket}
		if strings.HasPrefix(tc.name, "a folder of another") || tc.name == "not in the group" {
			ways["named"] = EnvPath + "=" + socket
			if _, err := os.Stat("/run/cachesidecar"); err != nil { // a sidecar of this machine would be found first
				ways["found"] = "XDG_RUNTIME_DIR=" + dir
			}
		}
		for how, env := range ways {
			cmd := exec.Command(program)
			cmd.Dir, cmd.Env = "/", []string{"UNIXSOCK_TEST_ROLE=dial", env}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger, Gid: uint32(tc.gid)}}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			want := "true true " + socket + ": permission denied: " + tc.want
			if tc.want == "<nil>" {
				want = "false false <nil>"
			}
			if !strings.HasPrefix(string(out), want) {
				t.Errorf("%s, %s:\n%swant:\n%s", tc.name, how, out, want)
			}
		}
	}
}
