package faults

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/proctest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// process is one sidecar process, with its log in a file.
type process struct {
	t      testing.TB
	name   string
	cmd    *exec.Cmd
	log    string
	exited chan struct{}
}

// launch executes a sidecar, by its command line and the variables that it needs. The
// process ends when the test ends, in every case.
func launch(t testing.TB, name string, words, env []string, log string) *process {
	t.Helper()
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	testenv.Must(t, err)
	defer out.Close()
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(scrubbed(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	proctest.EndWithParent(cmd)
	testenv.Must(t, cmd.Start())
	p := &process{t: t, name: name, cmd: cmd, log: log, exited: make(chan struct{})}
	go func() { // ends with the process, which the cleanup kills
		defer close(p.exited)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		p.kill()
		p.judge()
	})
	return p
}

// judge looks for text that no log may contain, and shows the log of a failed test.
func (p *process) judge() {
	b, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Error(err)
		return
	}
	log := string(b)
	for _, bad := range []string{"panic: ", "fatal error: ", "DATA RACE", "level=ERROR"} {
		if at := strings.Index(log, bad); at >= 0 {
			p.t.Errorf("%s wrote %q:\n%s", p.name, bad, log[at:min(at+4000, len(log))])
		}
	}
	if !p.t.Failed() {
		return
	}
	var lines []string
	for line := range strings.Lines(log) {
		if !strings.Contains(line, "level=DEBUG") {
			lines = append(lines, line)
		}
	}
	if more := len(lines) - 40; more > 0 {
		lines = append([]string{"…\n"}, lines[more:]...)
	}
	p.t.Logf("%s wrote, beside debug lines (all is kept with -faults.keep):\n%s", p.log, strings.Join(lines, ""))
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("%v to %s: %v", s, p.name, err)
	}
}

// kill ends the process as kill -9 does, and waits for it.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// wait waits for the end of a process that was asked to end.
func (p *process) wait() {
	p.t.Helper()
	select {
	case <-p.exited:
		if !p.cmd.ProcessState.Success() {
			p.t.Errorf("%s ended with %v", p.name, p.cmd.ProcessState)
		}
	case <-testenv.Expired():
		p.t.Fatalf("%s does not end", p.name)
	}
}
