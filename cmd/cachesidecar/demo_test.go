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

var demoPids = regexp.MustCompile(`^one is process (\d+)\ntwo is process (\d+)\nthree is process (\d+)\n`)

// pidsOf returns the processes of a demo; none if they have not all begun.
func pidsOf(t *testing.T, out string) (pids []int) {
	t.Helper()
	for _, s := range append(demoPids.FindStringSubmatch(out), "")[1:] {
		if pid, err := strconv.Atoi(s); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// gone reports whether a process has ended. A zombie counts as ended.
func gone(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

// busy reports whether a demo failed because the machine was too busy.
func busy(p *process) bool { return strings.Contains(p.log.String(), "process did not run for ") }

// runDemo starts the demo with a temporary folder of its own, and with environment
// settings that must not reach its sidecars.
func runDemo(t *testing.T) *process {
	t.Helper()
	cmd := exec.Command(binary(), "demo")
	cmd.Env = append(os.Environ(), "TMPDIR="+tempDir(t), "CACHESIDECAR_CLUSTER=mine", "CACHESIDECAR_MAX_STALENESS=nonsense")
	return launch(t, cmd)
}

// begun waits until the demo's sidecars have begun.
func (p *process) begun(t *testing.T) (pids []int) {
	t.Helper()
	p.waitFor("its sidecars", p.out, demoPids.MatchString)
	return pidsOf(t, p.out.String())
}

// TestDemo checks that the demo prints its story, and leaves nothing behind.
func TestDemo(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 8*time.Second)
	for range 10 {
		p := runDemo(t)
		p.wait()
		p.nothingLeft(t, "after its end")
		out := p.out.String()
		if busy(p) {
			t.Logf("the machine is busy: once more\n%s%s", out, p.log)
			continue
		}
		if p.status != exitDone || p.log.String() != "" {
			t.Fatalf("status %d\n%s\n%s", p.status, out, p.log)
		}
		for _, want := range []string{
			`(?s)members --socket one\nNODE .*\none +127\.0\.0\.1:\d+ +in .*\nthree .*\ntwo `,
			`stats --cluster --socket one\nhealth +serving: 3 of 3 hosts\n`,
			`(?s)set (key\d+) hello --socket one\n.*get key\d+ --json --socket three\n.*"hello".*"peer".*"hello".*"l1"`,
			`(?s)set key\d+ again --ack all --socket one\n.*get key\d+ --json --socket three\n.*"again".*"peer"`,
			`(?s)SIGKILL.*set key\d+ later --socket one\n.*get key\d+ --socket three\nlater`,
			`The sidecars are ended, and their folder is removed.\n$`,
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
		{"at the start", regexp.MustCompile(`one is`), syscall.SIGINT},
		{"while they look for each other", demoPids, syscall.SIGINT},
		{"SIGTERM", demoPids, syscall.SIGTERM},
		{"SIGHUP", demoPids, syscall.SIGHUP},
		{"while one is killed", regexp.MustCompile(`"again"`), syscall.SIGINT},
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
	for _, pid := range pidsOf(t, p.out.String()) {
		testenv.Eventually(t, what+": the end of a sidecar", func() bool { return gone(pid) })
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
	testenv.Must(t, err)
	dir := tempDir(t)
	cmd := exec.Command(binary(), "demo")
	cmd.Env, cmd.Stdout = append(os.Environ(), "TMPDIR="+dir), w
	p := launch(t, cmd)
	w.Close()
	testenv.Should(t, testenv.ErrorOf(r.Read(make([]byte, 1))))
	r.Close()
	p.ends(exitMiss)
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("there are %v, %v", left, err)
	}
}

// TestDemoThatDoesNotHold checks that the demo reports a deviation from its story and
// ends with status 1.
func TestDemoThatDoesNotHold(t *testing.T) {
	t.Parallel()
	p := runDemo(t)
	pids := p.begun(t)
	testenv.Must(t, syscall.Kill(pids[1], syscall.SIGKILL))
	want := "cachesidecar: not as it should be: two has ended: signal: killed\nThe sidecars wrote:\n"
	if status := p.wait(); status != exitMiss || !strings.Contains(p.log.String(), want) {
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
	pids := p.begun(t)
	p.signal(syscall.SIGKILL)
	p.wait()
	for _, pid := range pids {
		testenv.Eventually(t, "the end of a sidecar after SIGKILL", func() bool { return gone(pid) })
	}
}
