package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/proctest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestReadable checks the readable output of members, bench and version.
func TestReadable(t *testing.T) {
	serveHere(t)
	for line, out := range map[string]string{
		"members":                            `NODE +ADDRESS +STATE +WEIGHT +PARTITIONS +EPOCH\nhost1 +- +in +64 +16,384 +[0-9a-f]+\n`,
		"bench --duration 200ms --keys 1000": `16 connections .*\nGET .*100.0 % hits .*\nSET .*100.0 % stored .*\n`,
		"version":                            `cachesidecar \S+, protocol 1, go\S+\n`,
	} {
		if got := mustRun(t, strings.Fields(line)...); !regexp.MustCompile(`^` + out + `$`).MatchString(got) {
			t.Errorf("%s: %q, want %q", line, got, out)
		}
	}
}

// TestHealthOfStoppedSidecar checks that a stopped sidecar counts as up and not
// answering.
func TestHealthOfStoppedSidecar(t *testing.T) {
	t.Parallel()
	p := runSidecar(t)
	proctest.Stop(t, p.cmd.Process)
	defer p.signal(syscall.SIGCONT)
	p.at("health", "--timeout", "200ms").fails(t, "health", exitMiss, "it is up and does not answer")
	if o := p.at("get", "k", "--timeout", "200ms"); o.status != exitTimeout {
		t.Errorf("%v, want status %d", o, exitTimeout)
	}
}

// TestWatch checks that stats --watch continues until it is interrupted, also through a
// restart.
func TestWatch(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 3*time.Second)
	p := runSidecar(t)
	p.dial().must(setRequest("k", "v"))
	pages := launch(t, exec.Command(binary(), "stats", "--watch", "--socket", p.socket))
	documents := launch(t, exec.Command(binary(), "stats", "--watch", "--json", "--socket", p.socket))
	for _, w := range []*process{pages, documents} {
		w.waitFor("two ticks", w.out, func(out string) bool { return strings.Count(out, "ghosts") >= 2 })
	}
	p.terminate()
	pages.waitFor("word of the sidecar's end", pages.log, func(log string) bool { return strings.Contains(log, "unavailable") })
	at := strings.Count(pages.out.String(), "NAMESPACE")
	runSidecarAt(t, p.socket)
	pages.waitFor("a page of the new sidecar", pages.out, func(out string) bool { return strings.Count(out, "NAMESPACE") > at })
	for _, w := range []*process{pages, documents} {
		w.signal(os.Interrupt)
		if status := w.wait(); status != exitDone {
			t.Errorf("%q: SIGINT: status %d, want %d:\n%s", w.cmd.Args, status, exitDone, w.log)
		}
	}
	if out := pages.out.String(); !strings.Contains(out, "rates") || strings.Contains(out, "\x1b") {
		t.Errorf("pages without rates, or with escape sequences:\n%s", out)
	}
	d := json.NewDecoder(strings.NewReader(documents.out.String()))
	n := 0
	for ; ; n++ {
		var st struct {
			Node string `json:"node"`
		}
		if err := d.Decode(&st); errors.Is(err, io.EOF) {
			break
		} else if err != nil || st.Node != "host1" {
			t.Fatalf("document %d: %+v, %v", n, st, err)
		}
	}
	if n < 2 {
		t.Errorf("%d documents, want 2", n)
	}
}

// TestRunWithConfig checks that settings from file, environment and flags reach a real
// sidecar.
func TestRunWithConfig(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	file := filepath.Join(dir, "c.yaml")
	testenv.Must(t, os.WriteFile(file, []byte("node: from-file\nhttp: off\nl2_size: 16MiB\nmax_connections: 7\nlog_format: text\nnamespaces:\n  pages: {quota: 1MiB}\n"), 0o600))
	cmd := exec.Command(binary(), "run", "--config", file, "--l2-size", "32MiB")
	socket := filepath.Join(dir, "s")
	cmd.Env = append(os.Environ(), "CACHESIDECAR_SOCKET="+socket, "CACHESIDECAR_NODE=from-environment")
	p := launch(t, cmd)
	p.socket = socket
	p.waitFor("the sidecar to serve", p.log, func(log string) bool { return strings.Contains(log, "msg=serving") })
	st := p.dial().stats()
	if st.Node != "from-environment" || st.L2.Memory.Limit != 32<<20 || st.Connections.Limit != 7 || len(st.Namespaces) != 2 || st.Namespaces[1].Quota != 1<<20 {
		t.Errorf("%+v", st)
	}
	p.terminate()
}
