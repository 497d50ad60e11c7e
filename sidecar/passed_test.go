package sidecar

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// descriptor returns what systemd passes on for a socket.
func descriptor(t *testing.T, name string, of interface{ File() (*os.File, error) }) *os.File {
	t.Helper()
	f, err := of.File()
	testenv.Must(t, err)
	defer f.Close()
	fd, err := unix.Dup(int(f.Fd()))
	testenv.Must(t, err)
	return os.NewFile(uintptr(fd), name)
}

// TestPassedToTheProgram: a sidecar without a socket leaves what systemd has passed on to the program that
// it is embedded in.
func TestPassedToTheProgram(t *testing.T) {
	t.Setenv("LISTEN_FDS", "0")
	s := Sidecar{cfg: Config{NoSocket: true}}
	if _, err := s.listen(); err != nil {
		t.Error(err)
	}
	if _, there := os.LookupEnv("LISTEN_FDS"); !there {
		t.Error("the sidecar has taken it")
	}
}

// TestTakePassed passes listeners on as systemd does: by their addresses, and by their names where
// addresses do not tell, the sidecar knows what each is for, or says what is wrong.
func TestTakePassed(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	at := map[string]interface{ File() (*os.File, error) }{}
	for _, path := range []string{a, b} {
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		testenv.Must(t, err)
		defer ln.Close()
		at[path] = ln
	}
	local, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	testenv.Must(t, err)
	defer local.Close()
	everywhere, err := net.ListenTCP("tcp4", nil)
	testenv.Must(t, err)
	defer everywhere.Close()
	datagrams, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "d"), Net: "unixgram"})
	testenv.Must(t, err)
	defer datagrams.Close()
	tcp := local.Addr().String()
	_, port, _ := net.SplitHostPort(tcp)
	open := everywhere.Addr().String()
	_, openPort, _ := net.SplitHostPort(open)
	at[tcp], at[open], at["d"] = local, everywhere, datagrams

	type pass = [][2]string // address and name
	for _, tc := range []struct {
		name, setting     string
		passed            pass
		socket, memcached string
		wrong             []string // in the error
	}{
		{name: "nothing", setting: tcp},
		{"the socket alone", "", pass{{a, "cachesidecar.socket"}}, a, "", nil},
		{"the socket, and memcached is served without systemd", tcp, pass{{a, ""}}, a, "", nil},
		{"both in one unit", tcp, pass{{a, "cachesidecar.socket"}, {tcp, "cachesidecar.socket"}}, a, tcp, nil},
		{"the other order", tcp, pass{{tcp, ""}, {a, ""}}, a, tcp, nil},
		{"localhost", "localhost:" + port, pass{{tcp, ""}}, "", tcp, nil},
		{"two paths", b, pass{{a, ""}, {b, ""}}, a, b, nil},
		{"two paths in the other order", b, pass{{b, "memcached"}, {a, "socket"}}, a, b, nil},
		{"off", "", pass{{a, ""}, {tcp, ""}}, "", "", []string{tcp, "beside the socket at " + a, "memcached is off", "remove that ListenStream="}},
		{"another port", "127.0.0.1:1", pass{{tcp, ""}}, "", "", []string{tcp, "memcached is 127.0.0.1:1:", "the same address"}},
		{"the same port at all addresses", "127.0.0.1:" + openPort, pass{{open, ""}}, "", "", []string{open, "memcached is 127.0.0.1:" + openPort}},
		{"localhost is not all addresses", "localhost:" + openPort, pass{{open, ""}}, "", "", []string{open}},
		{"a port and a path", b, pass{{tcp, ""}}, "", "", []string{tcp, "memcached is " + b}},
		{"a path and off", "", pass{{b, "memcached"}}, "", "", []string{b, "memcached is off"}},
		{"a second socket", tcp, pass{{a, ""}, {b, ""}}, "", "", []string{b, "beside the socket at " + a, "memcached is " + tcp}},
		{"datagrams", "", pass{{"d", "it"}}, "", "", []string{"it, which is no listener of streams (its kind is unixgram)", "ListenStream= only"}},
	} {
		var files []*os.File
		for _, p := range tc.passed {
			files = append(files, descriptor(t, p[1], at[p[0]]))
		}
		socket, memcached, err := takePassed(&Config{Memcached: tc.setting}, files)
		if (err == nil) != (tc.wrong == nil) {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		for _, want := range tc.wrong {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", tc.name, err, want)
			}
		}
		if err != nil {
			continue
		}
		first, second := "", ""
		if socket != nil {
			first = socket.Addr().String()
			_ = socket.Close()
		}
		if memcached != nil {
			second = memcached.Addr().String()
			_ = memcached.Close()
		}
		if first != tc.socket || second != tc.memcached {
			t.Errorf("%s: the socket is %q, memcached's %q; want %q and %q", tc.name, first, second, tc.socket, tc.memcached)
		}
	}
}
