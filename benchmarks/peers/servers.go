package peers

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/load"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// Server is a running server.
type Server struct {
	Name    string
	Version string // empty for servers that are built here
	Socket  string // path, or host:port
	// Memcached is the path of the socket for memcached's protocol; empty: there is none.
	Memcached string
	Get       load.Protocol
	Set       load.Protocol
	binary    string
	process
}

// Options are the options of the servers under test.
type Options struct {
	Dir       string // for the sockets, and for the binaries of Build
	Label     string // tells servers of one name apart
	Bytes     int64  // memory for data; at least 64 MiB, memcached's own minimum
	KeySize   int
	ValueSize int
	Place     *Place // of a sidecar in a cluster
	Config    string // path of a sidecar's configuration file; empty: none
	HTTP      string // address of a sidecar's metrics; empty: none
	KeyFile   string // path of a cluster key file; empty: none, and plain text
	Memcached bool   // a sidecar serves memcached's protocol too
	Usual     bool   // memcached has its usual number of threads
	// Fan are the addresses of a fanout: its own, those that it asks, and those that it
	// notifies.
	Fan []string
}

const (
	maxConns = 20_000 // connections that servers are told to accept
	// memcached serves so many requests of one connection before it turns to the next.
	maxBatch  = 128
	startTime = 10 * time.Second // for a server to listen
	stopTime  = 10 * time.Second // for a server to end, before it is killed
)

// Start runs a server and returns once it listens. The server ends when ctx ends, at the
// latest.
func Start(ctx context.Context, name string, o Options) (*Server, error) {
	s := &Server{Name: name, Socket: filepath.Join(o.Dir, name+o.Label+".sock")}
	args, err := s.command(o)
	if err != nil {
		return nil, err
	}
	if s.network() == "unix" {
		if err := os.Remove(s.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	s.cmd = exec.CommandContext(ctx, s.binary, args...)
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(syscall.SIGTERM) }
	s.cmd.WaitDelay = stopTime
	if err := s.begin(); err != nil {
		return nil, fmt.Errorf("%s does not start: %w", name, err)
	}
	for end := time.Now().Add(startTime); time.Now().Before(end); {
		if s.listens() {
			s.Version = version(name, s.binary)
			return s, nil
		}
		select {
		case <-s.exited:
			return nil, fmt.Errorf("%s ended at once (%v): %s", name, s.cmd.ProcessState, s.said())
		case <-time.After(10 * time.Millisecond):
		}
	}
	s.Stop()
	return nil, fmt.Errorf("%s does not listen on %s after %v: %s", name, s.Socket, startTime, s.said())
}

// command sets the server's protocols and binary, and returns its arguments. All servers
// keep data in memory only. memcached needs a user name if root starts it; its default of
// 20 requests at a time costs a third of its throughput in batches of 64. Redis is at its
// best with its defaults.
func (s *Server) command(o Options) (args []string, err error) {
	value := bytes.Repeat([]byte("v"), o.ValueSize)
	size := strconv.FormatInt(o.Bytes, 10)
	switch s.Name {
	case record.Sidecar:
		s.binary = filepath.Join(o.Dir, "cachesidecar")
		s.Get, s.Set = load.Sidecar{KeySize: o.KeySize}, load.Sidecar{KeySize: o.KeySize, Value: value}
		args = []string{"run", "--socket", s.Socket, "--http", cmp.Or(o.HTTP, "off"), "--log-level", "warn", "--l2-size", size}
		if o.Config != "" {
			args = append(args, "--config", o.Config)
		}
		if o.KeyFile != "" {
			args = append(args, "--cluster-key-file", o.KeyFile)
		}
		if o.Memcached {
			s.Memcached = filepath.Join(o.Dir, s.Name+o.Label+".memcached.sock")
			args = append(args, "--memcached", s.Memcached)
		}
		return append(args, o.Place.flags()...), nil
	case record.Redis:
		s.binary, err = Installed("redis-server")
		s.Get, s.Set = Redis{KeySize: o.KeySize}, Redis{KeySize: o.KeySize, Value: value}
		return []string{"--unixsocket", s.Socket, "--port", "0", "--save", "", "--appendonly", "no",
			"--maxmemory", size, "--maxmemory-policy", "allkeys-lru", "--maxclients", strconv.Itoa(maxConns)}, err
	case record.Memcached:
		s.binary, err = Installed("memcached")
		s.Memcached = s.Socket
		s.Get, s.Set = Memcached{KeySize: o.KeySize}, Memcached{KeySize: o.KeySize, Value: value}
		args = []string{"-s", s.Socket, "-a", "0700", "-m", strconv.FormatInt(o.Bytes>>20, 10), "-c", strconv.Itoa(maxConns), "-u", "root"}
		if !o.Usual {
			args = append(args, "-t", strconv.Itoa(runtime.NumCPU()), "-R", strconv.Itoa(maxBatch))
		}
		return args, err
	case record.Fanout:
		s.binary = filepath.Join(o.Dir, "fanout")
		s.Get, s.Set = load.Sidecar{KeySize: o.KeySize}, load.Sidecar{KeySize: o.KeySize, Value: value}
		return append([]string{s.Socket}, o.Fan...), nil
	case record.Echo:
		s.binary = filepath.Join(o.Dir, "echo")
		s.Get, s.Set = EchoOf(o)
		return []string{s.Socket}, nil
	case record.Bare:
		s.binary = filepath.Join(o.Dir, "bare")
		s.Memcached = s.Socket
		return []string{s.Socket, strconv.Itoa(o.ValueSize)}, nil
	case record.EchoTCP:
		s.binary = filepath.Join(o.Dir, "echo")
		s.Get, s.Set = EchoOfPeers(o)
		if s.Socket, err = testenv.FindAddress(); err != nil {
			return nil, err
		}
		return []string{s.Socket}, nil
	}
	return nil, fmt.Errorf("there is no server %q: give %s, %s, %s, %s, %s or %s", s.Name, record.Sidecar, record.Redis, record.Memcached, record.Fanout, record.Echo, record.EchoTCP)
}

// ErrNotInstalled means that the program of a server is not on this machine.
var ErrNotInstalled = errors.New("not installed")

// Installed finds a server's program, which has the name of its Debian package.
func Installed(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("%s is %w: apt-get install %s", program, ErrNotInstalled, program)
	}
	return path, nil
}

// Dial connects to the server.
func (s *Server) Dial() (net.Conn, error) { return net.Dial(s.network(), s.Socket) }

// DialMemcached connects to the socket for memcached's protocol.
func (s *Server) DialMemcached() (net.Conn, error) { return net.Dial("unix", s.Memcached) }

// listens says whether the server accepts connections wherever it should.
func (s *Server) listens() bool {
	dials := []func() (net.Conn, error){s.Dial}
	if s.Memcached != "" {
		dials = append(dials, s.DialMemcached)
	}
	for _, dial := range dials {
		nc, err := dial()
		if err != nil {
			return false
		}
		_ = nc.Close()
	}
	return true
}

func (s *Server) network() string {
	if strings.Contains(s.Socket, "/") {
		return "unix"
	}
	return "tcp"
}

// Stop ends the server and waits for it.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

// Kill ends the server as kill -9 does, and waits for it.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

// version returns the version number that a server's program prints.
func version(name, binary string) string {
	if name != record.Redis && name != record.Memcached {
		return ""
	}
	out, _ := exec.Command(binary, "--version").Output()
	for _, word := range strings.Fields(string(out)) {
		word = strings.TrimPrefix(word, "v=")
		if word[0] >= '0' && word[0] <= '9' {
			return word
		}
	}
	return "unknown"
}
