package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/race"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// process is the command in a process of its own.
type process struct {
	t      testing.TB
	cmd    *exec.Cmd
	socket string
	out    *lines
	log    *lines // stderr
	exited chan struct{}
	status int // valid after exited is closed
}

// lines collects the output of a process.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{} // closed and replaced at each write
}

func newLines() *lines { return &lines{more: make(chan struct{})} }

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(b)
	close(l.more)
	l.more = make(chan struct{})
	return len(b), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// launch starts the command, and collects what it writes, unless that goes elsewhere. The
// process ends when the test ends, in every case.
func launch(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	if race.Enabled {
		t.Skip("the race detector does not watch other processes: run without -race")
	}
	p := &process{t: t, cmd: cmd, out: newLines(), log: newLines(), exited: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = p.out
	}
	if cmd.Stderr == nil {
		cmd.Stderr = p.log
	}
	cmd.WaitDelay = testenv.Patience
	endWithParent(cmd)
	testenv.Must(t, cmd.Start())
	go func() { // ends with the process, which the cleanup kills
		defer close(p.exited)
		_ = cmd.Wait()
		p.status = cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		select {
		case <-p.exited:
		default:
			_ = cmd.Process.Kill()
			<-p.exited
		}
		log := p.log.String()
		for _, bad := range []string{"panic: ", "fatal error: ", "goroutine 1 [", "DATA RACE"} {
			if strings.Contains(log, bad) {
				t.Errorf("the process wrote %q", bad)
			}
		}
		if t.Failed() {
			t.Logf("%q wrote:\n%s", cmd.Args, tail(log, 4000))
		}
	})
	return p
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// waitFor waits until ok accepts the process's output. It fails the test if that does not
// happen in time, or if the process ends before.
func (p *process) waitFor(what string, l *lines, ok func(string) bool) {
	p.t.Helper()
	deadline := testenv.Expired()
	for ended := false; ; {
		l.mu.Lock()
		text, more := l.text.String(), l.more
		l.mu.Unlock()
		if ok(text) {
			return
		}
		if ended {
			p.t.Fatalf("waited for %s, and the process ended with status %d:\n%s%s", what, p.status, p.out, p.log)
		}
		select {
		case <-more:
		case <-p.exited:
			ended = true
		case <-deadline:
			p.t.Fatalf("waited for %s; there is:\n%s", what, tail(text, 4000))
		}
	}
}

// signal sends a signal.
func (p *process) signal(s os.Signal) {
	p.t.Helper()
	testenv.Must(p.t, p.cmd.Process.Signal(s))
}

// wait waits for the process to end, and returns its exit status.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.exited:
		return p.status
	case <-testenv.Expired():
		p.t.Fatalf("the process does not end:\n%s", tail(p.log.String(), 4000))
		return 0
	}
}

// ends checks the status with which the process ends.
func (p *process) ends(status int) {
	p.t.Helper()
	if got := p.wait(); got != status {
		p.t.Errorf("status %d, want %d:\n%s", got, status, tail(p.log.String(), 4000))
	}
}

// runSidecar starts a sidecar on a new socket, with additional flags, and waits until it
// serves.
func runSidecar(t testing.TB, flags ...string) *process {
	t.Helper()
	return runSidecarAt(t, filepath.Join(tempDir(t), "s"), flags...)
}

func runSidecarAt(t testing.TB, socket string, flags ...string) *process {
	t.Helper()
	p := launch(t, exec.Command(binary(), append([]string{"run", "--socket", socket, "--http", "off", "--node", "host1"}, flags...)...))
	p.socket = socket
	p.waitFor("the sidecar to serve", p.log, func(log string) bool { return strings.Contains(log, `"msg":"serving"`) })
	return p
}

// runBinary runs the binary until it ends.
func runBinary(t testing.TB, args ...string) outcome {
	t.Helper()
	return runFile(t, binary(), args...)
}

func runFile(t testing.TB, name string, args ...string) outcome {
	t.Helper()
	ctx := testenv.Context(t)
	var out, err bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &err
	cmd.WaitDelay = testenv.Patience
	endWithParent(cmd)
	var exit *exec.ExitError
	if e := cmd.Run(); e != nil && !errors.As(e, &exit) {
		t.Fatalf("%q: %v", args, e)
	}
	return outcome{cmd.ProcessState.ExitCode(), out.String(), err.String()}
}

// at runs a client command against the process's socket, in the process of the tests: to start another takes longer
// than what it does.
func (p *process) at(args ...string) outcome {
	p.t.Helper()
	return command(p.t, "", append(args, "--socket", p.socket)...)
}

// loggedAt returns when the process logged a message, by its own clock.
func (p *process) loggedAt(message string) time.Time {
	p.t.Helper()
	for _, line := range strings.Split(p.log.String(), "\n") {
		var entry struct {
			Time time.Time `json:"time"`
			Msg  string    `json:"msg"`
		}
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == message {
			return entry.Time
		}
	}
	p.t.Fatalf("the sidecar did not log %q:\n%s", message, tail(p.log.String(), 4000))
	return time.Time{}
}

// stopped parses the last line of a sidecar's log.
func (p *process) stopped() (reads, writes int64) {
	p.t.Helper()
	for _, line := range strings.Split(p.log.String(), "\n") {
		if _, rest, ok := strings.Cut(line, `"msg":"stopped","reads":`); ok {
			if _, err := fmt.Sscanf(rest, `%d,"writes":%d`, &reads, &writes); err == nil {
				return reads, writes
			}
		}
	}
	p.t.Fatalf("the sidecar did not log its end:\n%s", tail(p.log.String(), 4000))
	return 0, 0
}

// terminate ends a sidecar with SIGTERM.
func (p *process) terminate() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	p.ends(exitDone)
	if _, err := os.Lstat(p.socket); !errors.Is(err, os.ErrNotExist) {
		p.t.Errorf("SIGTERM: the socket file is there: %v", err)
	}
}
