package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cachesidecar/cachesidecar/client"
)

// demoHosts are sidecars on this machine that act as separate hosts. They are processes
// of this binary, and end with it.
type demoHosts struct {
	dir     string
	cluster string
	list    []*demoHost
}

// demoHost is one sidecar process of the demo.
type demoHost struct {
	name   string
	socket string
	flags  []string
	*client.Client

	cmd    *exec.Cmd
	log    *lastWords
	exited chan struct{}
	ending bool // it is meant to end
}

// startHosts starts a sidecar for each name, on ports that were free a moment ago, with
// the same join addresses for all.
func startHosts(ctx context.Context, names ...string) (_ *demoHosts, err error) {
	parent := os.TempDir()
	if len(parent) > 60 { // a socket's path is at most 107 bytes long
		parent = "/tmp"
	}
	d := &demoHosts{cluster: fmt.Sprintf("demo-%08x", rand.Uint32())}
	if d.dir, err = os.MkdirTemp(parent, "cachesidecar-demo"); err != nil {
		return nil, fmt.Errorf("there is no folder for the sockets: %w", err)
	}
	defer func() {
		if err != nil {
			_ = d.end()
		}
	}()
	ports, err := freePorts(2 * len(names))
	if err != nil {
		return nil, err
	}
	var join []string
	for i := range names {
		join = append(join, loopback(ports[2*i]))
	}
	for i, name := range names {
		h := &demoHost{name: name, socket: filepath.Join(d.dir, name)}
		h.flags = []string{
			"run", "--node", name, "--socket", h.socket, "--cluster", d.cluster, "--join", strings.Join(join, ","),
			"--bind", loopback(ports[2*i]), "--peer-bind", loopback(ports[2*i+1]),
			"--l1-size", "4MiB", "--l2-size", "16MiB", "--shared-size", "off", "--http", "off", "--log-format", "text",
		}
		d.list = append(d.list, h)
	}
	for _, h := range d.list {
		if err := h.start(ctx); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// ownSetting reports whether an environment variable configures a sidecar.
func ownSetting(name string) bool {
	return strings.HasPrefix(name, "CACHESIDECAR_") || strings.HasPrefix(name, "LISTEN_") || name == "NOTIFY_SOCKET"
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// nextPort counts up from a random start, so that concurrent callers find different
// ports, although no caller reserves its ports.
var nextPort = func() *atomic.Uint32 {
	var n atomic.Uint32
	n.Store(rand.Uint32N(12_000))
	return &n
}()

// freePorts finds ports that are free for TCP and UDP, below the ports that systems
// assign by themselves. It holds ForkLock, since a child process forked meanwhile would
// keep the sockets open until its exec.
func freePorts(n int) (ports []int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	for range 100 * n {
		if len(ports) == n {
			return ports, nil
		}
		port := 20_000 + int(nextPort.Add(1)%12_000)
		var tcp net.Listener
		if tcp, err = net.Listen("tcp", loopback(port)); err != nil {
			continue
		}
		defer tcp.Close() // until the end, so that no port is found twice
		var udp net.PacketConn
		if udp, err = net.ListenPacket("udp", loopback(port)); err != nil {
			continue
		}
		defer udp.Close()
		ports = append(ports, port)
	}
	return nil, fmt.Errorf("no free ports on 127.0.0.1: %w", err)
}

// start starts the process, and waits until it serves its socket.
func (h *demoHost) start(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	h.log, h.exited, h.ending = &lastWords{}, make(chan struct{}), false
	h.cmd = exec.Command(self, h.flags...)
	h.cmd.Stderr = h.log
	for _, kv := range os.Environ() { // without the user's own settings
		if name, _, _ := strings.Cut(kv, "="); !ownSetting(name) {
			h.cmd.Env = append(h.cmd.Env, kv)
		}
	}
	endWithParent(h.cmd)
	if err := h.cmd.Start(); err != nil {
		return fmt.Errorf("%s does not start: %w", h.name, err)
	}
	cmd, exited := h.cmd, h.exited
	go func() { // ends with the process, which end kills
		_ = cmd.Wait()
		close(exited)
	}()
	for h.Client == nil || h.Ping(ctx) != nil {
		if h.Client == nil {
			c, err := client.Dial(ctx, client.Config{
				Socket: h.socket, Conns: 1, RequestTimeout: demoPatience, NoSharedMemory: true,
			})
			if err == nil {
				h.Client = c
				continue
			}
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
		if h.hasEnded() {
			return fmt.Errorf("%s has ended: %s", h.name, h.log)
		}
	}
	return nil
}

// pause waits for d. If ctx ends earlier, it returns the context's error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *demoHost) hasEnded() bool {
	select {
	case <-h.exited:
		return true
	default:
		return false
	}
}

// kill ends the process with SIGKILL, and waits for it.
func (h *demoHost) kill() {
	h.ending = true
	if h.cmd != nil && h.cmd.Process != nil {
		_ = h.cmd.Process.Kill()
		<-h.exited
	}
}

// end kills all processes and removes the folder.
func (d *demoHosts) end() error {
	for _, h := range d.list {
		if h.Client != nil {
			_ = h.Close()
		}
		h.kill()
	}
	return os.RemoveAll(d.dir)
}

// logs returns the last output of all hosts.
func (d *demoHosts) logs() string {
	var b strings.Builder
	for _, h := range d.list {
		if h.log != nil {
			fmt.Fprintf(&b, "%s wrote:\n%s", h.name, h.log)
		}
	}
	return b.String()
}

// lastWords keeps the end of a process's output.
type lastWords struct {
	mu   sync.Mutex
	text []byte
}

const lastWordsSize = 4 << 10

func (l *lastWords) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, b...)
	if over := len(l.text) - lastWordsSize; over > 0 {
		l.text = append(l.text[:0], l.text[over:]...)
	}
	return len(b), nil
}

func (l *lastWords) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}
