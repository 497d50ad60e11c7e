package recipe

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

const root = "../.."

// process is a program of a host that runs until it is ended.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended

	mu  sync.Mutex
	log bytes.Buffer
}

func (pr *process) Write(b []byte) (int, error) {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	return pr.log.Write(b)
}

func (pr *process) said() string {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	return pr.log.String()
}

// launch runs a block of the page as a process of its own, until the end of the test at the
// latest.
func (p *place) launch(t *testing.T, host int, script string) *process {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(p.on(host, script), "\n"), "\n")
	lines[len(lines)-1] = "exec " + lines[len(lines)-1] // signals reach the program, not the shell
	cmd := exec.Command("sh", "-ec", strings.Join(lines, "\n"))
	cmd.Env = p.environment(host)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	pr := &process{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = pr, pr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the process
		_ = cmd.Wait()
		close(pr.done)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-pr.done
		if t.Failed() {
			t.Logf("host %d: %s\n%s", host, lines[len(lines)-1], pr.said())
		}
	})
	return pr
}

// end sends a signal and waits for the end of the process.
func (pr *process) end(t *testing.T, s os.Signal) {
	t.Helper()
	if err := pr.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
	select {
	case <-pr.done:
	case <-testenv.Expired():
		t.Fatalf("%v does not end the process:\n%s", s, pr.said())
	}
}

// environment is that of commands on a host.
func (p *place) environment(host int) []string {
	return append(os.Environ(), "PATH="+filepath.Join(p.dir, "bin")+":"+os.Getenv("PATH"),
		"CACHESIDECAR_SOCKET="+filepath.Join(p.folder(host), "run", "cachesidecar.sock"))
}

// run runs a script of the page on a host, and returns what it prints.
func (p *place) run(t *testing.T, host int, script string) string {
	t.Helper()
	out, err := p.try(host, script)
	if err != nil {
		t.Fatalf("host %d: %s\n%v\n%s", host, script, err, out)
	}
	return out
}

func (p *place) try(host int, script string) (string, error) {
	cmd := exec.Command("sh", "-ec", p.on(host, script))
	cmd.Dir, cmd.Env = root, p.environment(host)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

var blanks = regexp.MustCompile(` +`) // addresses differ in their length

// console runs the commands of a block one after the other, and compares what each prints. "…"
// stands for any text.
func (p *place) console(t *testing.T, host int, text string) {
	t.Helper()
	steps := strings.Split("\n"+strings.TrimSuffix(text, "\n"), "\n$ ")[1:]
	if len(steps) == 0 {
		t.Fatalf("no command in\n%s", text)
	}
	for _, step := range steps {
		line, want, _ := strings.Cut(step, "\n")
		got := blanks.ReplaceAllString(strings.TrimSuffix(p.run(t, host, line), "\n"), " ")
		want = blanks.ReplaceAllString(p.on(host, want), " ")
		pattern := "^(?s:" + strings.ReplaceAll(regexp.QuoteMeta(want), "…", "[^\n]*") + ")$"
		if !regexp.MustCompile(pattern).MatchString(got) {
			t.Errorf("$ %s\nprints\n%s\nthe page says\n%s", line, got, want)
		}
	}
}

// allIn waits until each of the hosts sees all three in.
func (p *place) allIn(t *testing.T) {
	t.Helper()
	for host := 1; host <= 3; host++ {
		testenv.Eventually(t, fmt.Sprintf("host %d sees three hosts in", host), func() bool {
			out, err := p.try(host, "cachesidecar members")
			return err == nil && strings.Count(out, " in ") == 3
		})
	}
}
