// Package sidecars builds the command and runs real sidecars for the other checks.
package sidecars

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// built is the folder of the command; "" until it is built.
var built string

// Main runs the tests of a package, and removes the command that they have built.
func Main(m *testing.M) {
	status := m.Run()
	_ = os.RemoveAll(built)
	os.Exit(status)
}

// build builds the command, once for a test binary.
var build = sync.OnceValues(func() (path string, err error) {
	if built, err = os.MkdirTemp("", "checks"); err != nil {
		return "", err
	}
	return testenv.Build(built)
})

// Command returns the path of the command.
func Command(t testing.TB) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Sidecar is a running process.
type Sidecar struct {
	Node, Socket, HTTP string // HTTP is host:port

	t    testing.TB
	args []string
	cmd  *exec.Cmd
	log  *bytes.Buffer
	done chan struct{}
}

// A process of tests has a part of the ports from firstPort on to itself, and gives them in turn.
const (
	firstPort = 10_000
	partPorts = 500
	portParts = 20
)

// part is the ports of this process.
var part struct {
	lock  *os.File // held until the process ends
	first int
	given atomic.Int64
}

// takePart takes a part that no other process has.
var takePart = sync.OnceValue(func() error {
	for i := range portParts {
		name := filepath.Join(os.TempDir(), fmt.Sprintf("cachesidecar-ports-%d.lock", i))
		f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			part.lock, part.first = f, firstPort+i*partPorts
			return nil
		}
		_ = f.Close()
	}
	return fmt.Errorf("%d processes have ports of tests: wait until one ends", portParts)
})

// Ports returns n ports of the loopback address that are free for TCP and UDP. The system
// gives none of them to connections.
func Ports(t testing.TB, n int) (ports []int) {
	t.Helper()
	if err := takePart(); err != nil {
		t.Fatal(err)
	}
	for range 2 * partPorts {
		if len(ports) == n {
			return ports
		}
		if port := part.first + int(part.given.Add(1)-1)%partPorts; free(addr(port)) {
			ports = append(ports, port)
		}
	}
	t.Fatalf("not %d free ports of 127.0.0.1 from %d on", n, part.first)
	return nil
}

func free(address string) bool {
	tcp, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", address)
	return err == nil && udp.Close() == nil
}

// Origin serves an origin that has all keys, until the end of the test. It returns the path
// of a configuration whose namespace "pages" loads from it.
func Origin(t testing.TB) string {
	t.Helper()
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "value") }))
	t.Cleanup(origin.Close)
	path := filepath.Join(t.TempDir(), "config.yaml")
	text := "namespaces:\n  pages:\n    origin:\n      http:\n        url: " + origin.URL + "/{key}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Cluster starts n sidecars that are one cluster, named host-a, host-b and so on, each with
// more arguments of run. It returns when each sees all. They end with the test.
func Cluster(t testing.TB, n int, args ...string) []*Sidecar {
	t.Helper()
	return ClusterOf(t, slices.Repeat([][]string{args}, n))
}

// ClusterOf does the same, with other arguments for each.
func ClusterOf(t testing.TB, args [][]string) []*Sidecar {
	t.Helper()
	n := len(args)
	ports := Ports(t, 3*n)
	var join []string
	for i := range n {
		join = append(join, addr(ports[3*i]))
	}
	var list []*Sidecar
	for i := range n {
		node := "host-" + string(rune('a'+i))
		s := &Sidecar{Node: node, Socket: filepath.Join(t.TempDir(), "s.sock"), HTTP: addr(ports[3*i+2]), t: t}
		s.args = append([]string{
			"run", "--node", node, "--socket", s.Socket, "--bind", addr(ports[3*i]), "--peer-bind", addr(ports[3*i+1]),
			"--join", strings.Join(join, ","), "--http", s.HTTP,
		}, args[i]...)
		s.Start()
		list = append(list, s)
	}
	t.Cleanup(func() {
		for _, s := range list {
			s.Kill()
			if t.Failed() {
				t.Logf("the log of %s:\n%s", s.Node, s.log)
			}
		}
	})
	for _, s := range list {
		s.Sees(n)
	}
	return list
}

func addr(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// Start starts the process.
func (s *Sidecar) Start() {
	s.t.Helper()
	s.cmd = exec.Command(Command(s.t), s.args...)
	s.log = &bytes.Buffer{}
	s.cmd.Stderr = s.log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.done = make(chan struct{})
	go func() { _ = s.cmd.Wait(); close(s.done) }() // ends with the process
}

// Kill ends the process at once.
func (s *Sidecar) Kill() {
	_ = s.cmd.Process.Signal(syscall.SIGKILL)
	<-s.done
}

// Stop ends the process in order.
func (s *Sidecar) Stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	<-s.done
}

// Run runs the command against the sidecar and returns its output. The status may be any.
func (s *Sidecar) Run(args ...string) string {
	s.t.Helper()
	cmd := exec.Command(Command(s.t), args...)
	cmd.Env = append(os.Environ(), "CACHESIDECAR_SOCKET="+s.Socket)
	out, err := cmd.CombinedOutput()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		s.t.Fatalf("%q: %v", args, err)
	}
	return string(out)
}

// Sees waits until the sidecar is ready and lists n hosts in the state in.
func (s *Sidecar) Sees(n int) {
	s.t.Helper()
	testenv.Eventually(s.t, fmt.Sprintf("%s sees %d hosts", s.Node, n), func() bool {
		r, err := http.Get("http://" + s.HTTP + "/readyz")
		if err != nil {
			return false
		}
		_ = r.Body.Close()
		return r.StatusCode == http.StatusOK && strings.Count(s.Run("members"), " in ") == n
	})
}
