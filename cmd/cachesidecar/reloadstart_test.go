package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestReloadAtStart: a reload before the sidecar serves does not tell systemd that it is
// ready, and a strict one whose origin then gives no answer never is.
func TestReloadAtStart(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0") // an origin that does not answer
	testenv.Must(t, err)
	defer ln.Close()
	notify := filepath.Join(dir, "n")
	nc, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	testenv.Must(t, err)
	defer nc.Close()
	file := filepath.Join(dir, "c.yaml")
	text := "namespaces: {users: {limits: {timeout: 30s}, origin: {postgres: {dsn_env: USERS, query: \"SELECT $1\"}}}}\n"
	testenv.Must(t, os.WriteFile(file, []byte(text), 0o600))
	cmd := exec.Command(binary(), "run", "--ask-origins", "--http", "off", "--socket", filepath.Join(dir, "s"), "--config", file)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify, fmt.Sprintf("USERS=postgres://u@%s/d?sslmode=disable", ln.Addr()))
	p := launch(t, cmd)
	ln.(*net.TCPListener).SetDeadline(testenv.Deadline())
	c, err := ln.Accept() // the origin is asked: the sidecar does not serve yet
	testenv.Must(t, err)
	defer c.Close()
	p.signal(syscall.SIGHUP)
	p.told("the configuration is read", 1)
	if _, err := os.Lstat(filepath.Join(dir, "s")); err == nil {
		t.Fatal("it serves already")
	}
	ln.Close()
	c.Close()
	p.ends(exitMiss)
	end, err := net.Dial("unixgram", notify)
	testenv.Must(t, err)
	defer end.Close()
	testenv.Must(t, testenv.ErrorOf(end.Write([]byte("the end"))))
	if got := read(t, nc); got != "the end" {
		t.Errorf("systemd is told %q", got)
	}
}
