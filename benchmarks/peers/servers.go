// Package peers runs the servers that are compared, each a process of its own
// on a Unix socket, and speaks their protocols.
package peers

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/load"
)

// Server is a running server.
type Server struct {
	Name    string
	Version string
	Socket  string
	Get     load.Protocol
	Set     load.Protocol // nil for the echo
	cmd     *exec.Cmd
}

// Options of the servers under test.
type Options struct {
	Dir       string // for sockets and binaries
	Bytes     int64  // memory for data
	KeySize   int
	ValueSize int
}

// Start runs a server by name: sidecar, redis, memcached or echo.
func Start(ctx context.Context, name string, o Options) (*Server, error) {
	s := &Server{Name: name, Socket: filepath.Join(o.Dir, name+".sock")}
	_ = os.Remove(s.Socket)
	value := bytes.Repeat([]byte("v"), o.ValueSize)
	var args []string
	switch name {
	case "sidecar":
		s.Get = load.Sidecar{KeySize: o.KeySize}
		s.Set = load.Sidecar{KeySize: o.KeySize, Value: value}
		args = []string{filepath.Join(o.Dir, "cachesidecar"), "run", "--socket", s.Socket, "--http", "off", "--log-level", "warn",
			"--l2-size", strconv.FormatInt(o.Bytes, 10)}
	case "redis":
		s.Get = Redis{KeySize: o.KeySize}
		s.Set = Redis{KeySize: o.KeySize, Value: value}
		args = []string{"redis-server", "--unixsocket", s.Socket, "--port", "0", "--save", "", "--appendonly", "no",
			"--maxmemory", strconv.FormatInt(o.Bytes, 10), "--maxmemory-policy", "allkeys-lru"}
	case "memcached":
		s.Get = Memcached{KeySize: o.KeySize}
		s.Set = Memcached{KeySize: o.KeySize, Value: value}
		args = []string{"memcached", "-s", s.Socket, "-a", "0700", "-m", strconv.FormatInt(o.Bytes>>20, 10), "-c", "20000", "-t", "2", "-u", "root"}
	case "echo":
		s.Get = Echo{Frame: answerSize(o)}
		args = []string{filepath.Join(o.Dir, "echo"), s.Socket}
	default:
		return nil, fmt.Errorf("there is no server %q", name)
	}
	s.cmd = exec.CommandContext(ctx, args[0], args[1:]...)
	s.cmd.Stderr = os.Stderr
	if name == "sidecar" && os.Getenv("ONEP") != "" {
		s.cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	}
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(syscall.SIGTERM) }
	s.cmd.WaitDelay = 10 * time.Second
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w: install it (Debian: redis-server, memcached)", name, err)
	}
	for range 500 {
		if nc, err := s.Dial(); err == nil {
			_ = nc.Close()
			s.Version = versionOf(name, args[0])
			return s, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.Stop()
	return nil, fmt.Errorf("%s does not listen on %s", name, s.Socket)
}

// answerSize is the length of the sidecar's answer to a GET, in bytes: length,
// array head, id, status, value with head, flags, version, TTL, source, age.
func answerSize(o Options) int { return 4 + 1 + 5 + 1 + 2 + o.ValueSize + 1 + 9 + 5 + 1 + 1 }

// Dial connects.
func (s *Server) Dial() (net.Conn, error) { return net.Dial("unix", s.Socket) }

// Stop ends the server and waits for it.
func (s *Server) Stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	_ = s.cmd.Wait()
}

// Resident is the memory that the server's process holds, in bytes.
func (s *Server) Resident() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("no VmRSS of %s", s.Name)
}

func versionOf(name, path string) string {
	arg := "--version"
	switch name {
	case "echo":
		return ""
	case "sidecar":
		arg = "version"
	}
	out, _ := exec.Command(path, arg).Output()
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

// Build compiles the sidecar, as its own module has it, and the echo server
// into dir.
func Build(ctx context.Context, dir string) error {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/cachesidecar/cachesidecar").Output()
	if err != nil {
		return fmt.Errorf("where the sidecar's module is: %w", err)
	}
	for _, b := range []struct{ in, out, pkg string }{
		{strings.TrimSpace(string(root)), "cachesidecar", "./cmd/cachesidecar"},
		{"", "echo", "github.com/cachesidecar/cachesidecar/benchmarks/cmd/echo"},
	} {
		cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, b.out), b.pkg)
		cmd.Dir = b.in
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", b.pkg, err, out)
		}
	}
	return nil
}
