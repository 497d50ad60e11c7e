package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// demoTraces are what a demo could leave behind: its processes and its folder.
type demoTraces struct {
	pids []int
	dir  string
}

var demoServes = regexp.MustCompile(`they serve: pids (\d+), (\d+) and (\d+), sockets in (\S+)\n`)

func tracesOf(t *testing.T, out string) (d demoTraces) {
	t.Helper()
	m := demoServes.FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("there are no pids:\n%s", out)
	}
	for _, s := range m[1:4] {
		pid, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		d.pids = append(d.pids, pid)
	}
	d.dir = m[4]
	return d
}

// gone reports whether a process has ended. A zombie counts as ended.
func gone(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

func (d demoTraces) check(t *testing.T, what string) {
	t.Helper()
	for _, pid := range d.pids {
		testenv.Eventually(t, what+": the end of a sidecar", func() bool { return gone(pid) })
	}
	if _, err := os.Lstat(d.dir); !os.IsNotExist(err) {
		t.Errorf("%s: %s is there: %v", what, d.dir, err)
	}
}

// busy reports whether a demo failed because the machine was too busy.
func busy(p *process) bool { return strings.Contains(p.log.String(), "This machine stood still") }

// runDemo starts the demo with a temporary folder of its own, and with environment
// settings that must not reach its sidecars.
func runDemo(t *testing.T) *process {
	t.Helper()
	cmd := exec.Command(binary(), "demo")
	cmd.Env = append(os.Environ(), "TMPDIR="+tempDir(t), "CACHESIDECAR_CLUSTER=mine", "CACHESIDECAR_L2_SIZE=nonsense")
	return launch(t, cmd)
}

// serving waits until the demo's sidecars serve.
func (p *process) serving(t *testing.T) demoTraces {
	t.Helper()
	p.waitFor("its sidecars", p.out, demoServes.MatchString)
	return tracesOf(t, p.out.String())
}

// TestDemo checks that the demo prints its story, and leaves nothing behind.
func TestDemo(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 10*time.Second)
	for range 10 {
		p := runDemo(t)
		traces := p.serving(t)
		p.wait()
		traces.check(t, "after its end")
		out := p.out.String()
		if busy(p) {
			t.Logf("the machine is busy: once more\n%s%s", out, p.log)
			continue
		}
		if p.status != exitDone || p.log.String() != "" {
			t.Fatalf("status %d\n%s\n%s", p.status, out, p.log)
		}
		for _, want := range []string{
			`(?s)NODE .*\n +one +127\.0\.0\.1:\d+ +in .*\n +three .*\n +two `,
			`set 300 keys through one, \S+ each: \d+ are its own, \d+ go to two, \d+ to three\n`,
			`through two +from l2 +\S+, then from l2 +\S+\n`,
			`through one +from peer +\S+, then from l1 +\S+\n`,
			`through three +from peer +\S+, then from l1 +\S+\n`,
			`medians of 300 reads through one: l2 \S+, l1 \S+, peer \S+ \(`,
			`kill -9 of two\n`,
			`keys of two can be written again, \S+s after its end; \d+ writes were refused before`,
			`copies of its keys were read for \S+, then they were missed\n`,
			`\d+ of \d+ reads of the others' keys were hits, the slowest answer took \S+\n`,
			`all 300 are read through one and three\n`,
			` two +\S+ +missing `,
			`it has joined, and its share has been handed over to it, \S+s after its start: [1-9]\d* entries\n`,
			`all 300 keys are read through each of the three\n`,
			`three is told to end \(SIGTERM\); it has [1-9]\d* entries\n`,
			`it has handed them over and ended, after \S+s: all 300 keys are read through one and two\n`,
			` three +\S+ +left `,
			`done; the sidecars are ended and their sockets removed\n$`,
		} {
			if !regexp.MustCompile(want).MatchString(out) {
				t.Errorf("the story lacks %q:\n%s", want, out)
			}
		}
		if strings.Contains(out, "\x1b") {
			t.Errorf("it has escape sequences:\n%q", out)
		}
		t.Logf("\n%s", out)
		return
	}
	t.Fatal("the machine stood still each time")
}

// TestLengthyDemoInterrupted checks that the demo leaves nothing behind, however it is ended.
func TestLengthyDemoInterrupted(t *testing.T) {
	testenv.Takes(t, 20*time.Second)
	t.Parallel()
	for _, tc := range []struct {
		name string
		when *regexp.Regexp
		sig  syscall.Signal
	}{
		{"at the start", regexp.MustCompile(`three sidecars`), syscall.SIGINT},
		{"while they look for each other", demoServes, syscall.SIGINT},
		{"SIGTERM", demoServes, syscall.SIGTERM},
		{"SIGHUP", demoServes, syscall.SIGHUP},
		{"while one is killed", regexp.MustCompile(`kill -9`), syscall.SIGINT},
	} {
		p := runDemo(t)
		p.waitFor(tc.name, p.out, tc.when.MatchString)
		p.signal(tc.sig)
		if status := p.wait(); status != exitMiss || p.log.String() != "cachesidecar: interrupted\n" {
			t.Errorf("%s: status %d, %s, want status %d and \"interrupted\"", tc.name, status, p.log, exitMiss)
		}
		p.nothingLeft(t, tc.name)
	}
}

// nothingLeft looks for what an ended demo could have left behind.
func (p *process) nothingLeft(t *testing.T, what string) {
	t.Helper()
	if out := p.out.String(); demoServes.MatchString(out) {
		tracesOf(t, out).check(t, what)
	}
	for _, kv := range p.cmd.Env {
		if dir, ok := strings.CutPrefix(kv, "TMPDIR="); ok {
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("%s: there are %v, %v", what, left, err)
			}
		}
	}
}

// TestLengthyDemoWithoutReader checks that the demo ends if its output is closed.
func TestLengthyDemoWithoutReader(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	dir := tempDir(t)
	cmd := exec.Command(binary(), "demo")
	cmd.Env, cmd.Stdout = append(os.Environ(), "TMPDIR="+dir), w
	endWithParent(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if _, err := r.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	r.Close()
	_ = cmd.Wait()
	if status := cmd.ProcessState.ExitCode(); status != exitMiss {
		t.Errorf("%v, want status %d", cmd.ProcessState, exitMiss)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("there are %v, %v", left, err)
	}
}

// TestDemoThatDoesNotHold checks that the demo reports a deviation from its story and
// ends with status 1.
func TestDemoThatDoesNotHold(t *testing.T) {
	t.Parallel()
	p := runDemo(t)
	traces := p.serving(t)
	if err := syscall.Kill(traces.pids[1], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if status := p.wait(); status != exitMiss || !strings.Contains(p.log.String(), "cachesidecar: not as it should be: they have not found each other: two has ended\n") ||
		!strings.Contains(p.log.String(), "one wrote:\n") || !strings.Contains(p.log.String(), "taking part in a cluster") {
		t.Errorf("status %d, want %d:\n%s", status, exitMiss, p.log)
	}
	p.nothingLeft(t, "after its failure")
}

// TestDemoKilled checks that the sidecars end with the demo even if it is killed.
func TestDemoKilled(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends a process with its parent")
	}
	t.Parallel()
	p := runDemo(t)
	traces := p.serving(t)
	p.signal(syscall.SIGKILL)
	p.wait()
	os.RemoveAll(traces.dir) // the killed demo could not do it
	traces.check(t, "after SIGKILL")
}
