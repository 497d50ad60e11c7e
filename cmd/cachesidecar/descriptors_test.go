package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// runLimited starts a sidecar under a limit of open files, in the form of ulimit's
// arguments.
func runLimited(t *testing.T, limit string, flags ...string) *process {
	t.Helper()
	socket := filepath.Join(tempDir(t), "s")
	args := append([]string{"-c", `ulimit ` + limit + ` && exec "$0" run "$@"`, binary(), "--socket", socket, "--node", "host1"}, flags...)
	p := launch(t, exec.Command("/bin/sh", args...))
	p.socket = socket
	p.waitFor("the sidecar to serve", p.log, func(log string) bool { return strings.Contains(log, `"msg":"serving"`) })
	return p
}

// TestHTTPTakesNoDescriptors opens more connections to the HTTP port than the process may
// have descriptors, idle ones and kept ones. Apps and probes are still served.
func TestHTTPTakesNoDescriptors(t *testing.T) {
	t.Parallel()
	ports, err := freePorts(1)
	testenv.Must(t, err)
	address := fmt.Sprintf("127.0.0.1:%d", ports[0])
	p := runLimited(t, "-n 256", "--http", address)
	if l := p.only("WARN", "limit of open files", time.Time{}); l["max_connections"] != 16384.0 || l["limit"] != 256.0 || !strings.Contains(l["msg"].(string), "LimitNOFILE=") {
		t.Errorf("%v", l)
	}
	ctx := testenv.Context(t)
	old, err := client.Dial(ctx, client.Config{Socket: p.socket, DialTimeout: testenv.Patience, RequestTimeout: testenv.Patience})
	testenv.Must(t, err)
	defer old.Close()
	for _, request := range []string{"", "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"} {
		for range 400 {
			c, err := net.DialTimeout("tcp", address, testenv.Patience)
			testenv.Must(t, err)
			defer c.Close()
			_, _ = io.WriteString(c, request)
		}
		if _, err := old.Set(ctx, "k", []byte("v"), cachesidecar.SetOptions{}); err != nil {
			t.Errorf("an app that is there: %v", err)
		}
		p.serves() // another app
		hc := &http.Client{Timeout: testenv.Patience, Transport: &http.Transport{DisableKeepAlives: true}}
		if resp, err := hc.Get("http://" + address + "/livez"); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("a probe: %v", err)
		} else {
			_ = resp.Body.Close()
		}
	}
}

// TestConnectionsWithinDescriptors checks that connections beyond the limit are refused
// at once, and that the others are served.
func TestConnectionsWithinDescriptors(t *testing.T) {
	t.Parallel()
	p := runLimited(t, "-n 256", "--http", "off")
	ctx := testenv.Context(t)
	old, err := client.Dial(ctx, client.Config{Socket: p.socket, DialTimeout: testenv.Patience, RequestTimeout: testenv.Patience})
	testenv.Must(t, err)
	defer old.Close()
	refused := 0
	for range 300 {
		switch c, err := p.tryDial(); { // each is answered or refused
		case err == nil:
			defer c.close()
		case errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET):
			refused++
		default:
			t.Fatal(err)
		}
	}
	if refused < 40 || refused > 150 {
		t.Errorf("%d of 300 were refused", refused)
	}
	testenv.Should(t, testenv.ErrorOf(old.Set(ctx, "k", []byte("v"), cachesidecar.SetOptions{})))
}

// TestSoftLimitIsRaised checks that the soft limit is raised to the hard limit.
func TestSoftLimitIsRaised(t *testing.T) {
	t.Parallel()
	p := runLimited(t, "-Sn 64", "--http", "off", "--max-connections", "200")
	if lines := p.logged("WARN", time.Time{}); len(lines) > 0 {
		t.Errorf("%v", lines)
	}
}
