package main

import (
	"bufio"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// processors is Go's own choice here. Tests that call run in this process change it.
var processors = runtime.GOMAXPROCS(0)

// runTuned runs a sidecar with some environment, and returns the address of its metrics.
func runTuned(t *testing.T, env ...string) (p *process, page string) {
	t.Helper()
	page = testenv.FreeAddress(t)
	socket := filepath.Join(tempDir(t), "s")
	cmd := exec.Command(binary(), "run", "--socket", socket, "--http", page,
		"--l1-size", "16MiB", "--l2-size", "16MiB", "--buffer-size", "64MiB", "--max-connections", "2000")
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); name != "GOGC" && name != "GOMEMLIMIT" && name != "GOMAXPROCS" {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, env...)
	p = launch(t, cmd)
	p.socket = socket
	p.waitFor("the sidecar to serve", p.log, func(log string) bool { return strings.Contains(log, `"msg":"serving"`) })
	return p, page
}

// metric reads a metric. Its name includes the labels, if any, as they are written.
func metric(t *testing.T, address, name string) float64 {
	t.Helper()
	r, err := http.Get("http://" + address + "/metrics")
	testenv.Must(t, err)
	defer r.Body.Close()
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		if v, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			f, _ := strconv.ParseFloat(v, 64)
			return f
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// TestRunTunesTheRuntime checks that run makes Go's collector run seldom below a memory limit, and
// has two of Go's processors more than there are while a connection is busy. The environment
// overrides both.
func TestRunTunesTheRuntime(t *testing.T) {
	t.Parallel()
	p, page := runTuned(t)
	limit := float64(2*16<<20 + 64<<20 + 2000*12<<10 + 96<<20)
	for name, want := range map[string]float64{
		"go_gc_gogc_percent": 200, "go_gc_gomemlimit_bytes": limit, "go_sched_gomaxprocs_threads": float64(processors),
	} {
		if n := metric(t, page, name); n != want {
			t.Errorf("%s is %v, want %v", name, n, want)
		}
	}
	if processors > 1 {
		c := p.dial() // a long value keeps its reader busy
		c.must(&wire.Request{Op: wire.OpSet, Key: []byte("k"), Value: make([]byte, 512<<10)})
		c.must(&wire.Request{Op: wire.OpGet, Key: []byte("k")})
		testenv.Eventually(t, "there are two more of Go's processors", func() bool {
			return metric(t, page, "go_sched_gomaxprocs_threads") == float64(processors+2)
		})
	}
	_, page = runTuned(t, "GOGC=77", "GOMAXPROCS=3")
	for name, want := range map[string]float64{"go_gc_gogc_percent": 77, "go_sched_gomaxprocs_threads": 3} {
		if n := metric(t, page, name); n != want {
			t.Errorf("told so by the environment: %s is %v, want %v", name, n, want)
		}
	}
	_, page = runTuned(t, "GOMEMLIMIT=300MiB")
	if n := metric(t, page, "go_gc_gogc_percent"); n != 100 {
		t.Errorf("with a limit of the environment go_gc_gogc_percent is %v", n)
	}
}

// TestLengthyConnectionsBeginAtAPace checks that of one user's connections 128 begin at once,
// and then 250 a second for each of Go's processors, 750 at least.
func TestLengthyConnectionsBeginAtAPace(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	testenv.ReadsClock(t, 1800*time.Millisecond, "the pace is a stated limit: the last may not begin sooner")
	needFiles(t, 4096)
	const n, soonest = 1628, (1628 - 128) * time.Second / 750 * 9 / 10
	p, page := runTuned(t, "GOMAXPROCS=1")
	start := time.Now()
	conns := dialMany(t, p, n, p.tryConnect)
	waiting, asked := 0.0, 0 // what the kernel still has is not counted
	for ; waiting == 0 && time.Since(start) < soonest; asked++ {
		waiting = metric(t, page, "cachesidecar_connections_waiting")
	}
	if waiting == 0 && asked > 10 {
		t.Errorf("the metric has said %d times that none waits", asked)
	}
	for _, c := range conns {
		c.must(helloRequest())
	}
	if took := time.Since(start); took < soonest {
		t.Errorf("%d connections began within %v, which is below %v", n, took, soonest)
	}
	if waiting := metric(t, page, "cachesidecar_connections_waiting"); waiting != 0 {
		t.Errorf("%v wait when all have begun", waiting)
	}
}
