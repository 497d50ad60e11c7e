// Package memcachedtest holds servers of memcached's protocol to what memcached does: one
// host, a host of several, and memcached itself.
//
// Input is a client's connection to such a server. Output is failures of the test.
//
// The package starts memcached for a test, and no server of ours. It has no goroutine.
package memcachedtest

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// Conn is a client that speaks memcached's protocol.
type Conn struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

// New returns a client on a connection.
func New(t testing.TB, nc net.Conn) *Conn { return &Conn{nc, t, bufio.NewReader(nc)} }

// Dial returns a client that lives as long as its test.
func Dial(t testing.TB, network, address string) *Conn {
	t.Helper()
	nc, err := net.Dial(network, address)
	testenv.Must(t, err)
	t.Cleanup(func() { nc.Close() })
	return New(t, nc)
}

// Memcached starts memcached for a test, and returns a client of it.
func Memcached(t testing.TB) *Conn {
	t.Helper()
	program := origintest.Need(t, "memcached", "apt-get install memcached")
	socket := filepath.Join(origintest.Folder(t), "s")
	origintest.Start(t, exec.Command(program, "-s", socket, "-u", "root", "-I", "8m"), socket)
	return Dial(t, "unix", socket)
}

// Send sends bytes.
func (c *Conn) Send(s string) {
	c.t.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		c.t.Fatal(err)
	}
}

// ReadLine returns the next line with its end.
func (c *Conn) ReadLine() (string, error) {
	_ = c.SetReadDeadline(testenv.Deadline())
	return c.r.ReadString('\n')
}

// Line returns the next line, or why there is none.
func (c *Conn) Line() string {
	s, err := c.ReadLine()
	if err != nil {
		return fmt.Sprintf("%s (%v)", s, err)
	}
	return strings.TrimSuffix(s, "\r\n")
}

// Ask sends a command and expects lines.
func (c *Conn) Ask(command string, want ...string) {
	c.t.Helper()
	c.Send(command + "\r\n")
	for _, w := range want {
		if got := c.Line(); got != w {
			c.t.Fatalf("%.80q: %.200q, want %.200q", command, got, w)
		}
	}
}

// UntilNoop returns all lines before the answer to mn, each with a | behind it.
func (c *Conn) UntilNoop() (all string) {
	for {
		line := c.Line()
		if line == "MN" || strings.Contains(line, "(") {
			return all
		}
		all += line + "|"
	}
}
