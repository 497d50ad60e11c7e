package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rivo/uniseg"
	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar/internal/testing/pty"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// startTop runs top in this process, on a terminal of its own.
func startTop(t *testing.T, args ...string) (tt *pty.Terminal, end context.CancelFunc, done chan int) {
	t.Helper()
	tt = pty.Open(t)
	tt.Resize(t, 80, 24)
	ctx, end := context.WithCancel(t.Context())
	done = make(chan int, 1)
	go func() { // ends with ctx, or with a key
		p := &program{in: tt.Its, out: tt.Its, err: tt.Its}
		done <- p.run(ctx, append([]string{"cachesidecar", "top", "--interval", "200ms"}, args...))
	}()
	t.Cleanup(end)
	return tt, end, done
}

// Sequences of ANSI terminals, as a terminal gets them.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l" // the other screen, no cursor, no line wrap
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	endOfLine   = "\x1b[K\r\n"
	endOfScreen = "\x1b[J"
)

// lastPage returns the lines of the last complete page of a terminal's output.
func lastPage(text string) []string {
	end := strings.LastIndex(text, endOfScreen)
	if end < 0 {
		return nil
	}
	page := text[:end]
	page = page[strings.LastIndex(page, home)+len(home):]
	lines := strings.Split(page, endOfLine)
	for i, line := range lines {
		lines[i] = strings.NewReplacer("\x1b[K", "", "\x1b[1m", "", "\x1b[0m", "").Replace(line)
	}
	return lines
}

func has(what string) func(string) bool {
	return func(text string) bool { return strings.Contains(strings.Join(lastPage(text), "\n"), what) }
}

func TestTopOnTerminal(t *testing.T) {
	testenv.Takes(t, time.Second)
	serveHere(t)
	mustRun(t, "set", "k", "v")
	for _, tc := range []struct{ name, keys string }{{"q", "q"}, {"Ctrl-C", "\x03"}, {"a signal", ""}} {
		t.Run(tc.name, func(t *testing.T) {
			tt, end, done := startTop(t)
			text := tt.WaitFor(t, "rates", has("host1  in           0"))
			if !strings.HasPrefix(text, enterScreen) || !strings.Contains(text, "\x1b[1mHOST ") {
				t.Errorf("the page does not begin on the other screen, with a bold head: %q", text[:40])
			}
			for _, want := range []string{"cachesidecar top on host1: 1 of 1 hosts", "NAMESPACE ", "default ", "HOTTEST ", "q quit"} {
				if !has(want)(text) {
					t.Errorf("the page lacks %q:\n%s", want, strings.Join(lastPage(text), "\n"))
				}
			}
			tt.Press(t, "\x1b[A") // an arrow is no order
			tt.Press(t, "e")
			tt.WaitFor(t, "another order", has("by errors"))
			tt.Resize(t, 40, 9)
			testenv.Must(t, syscall.Kill(os.Getpid(), syscall.SIGWINCH))
			text = tt.WaitFor(t, "the narrow page", func(s string) bool { return len(lastPage(s)) == 9 && has("…")(s) })
			for _, line := range lastPage(text) {
				if uniseg.StringWidth(line) > 40 {
					t.Errorf("%q is wider than the terminal", line)
				}
			}
			if tc.keys == "" {
				end()
			} else {
				tt.Press(t, tc.keys)
			}
			if status := <-done; status != exitDone {
				t.Errorf("status %d", status)
			}
			tt.WaitFor(t, "the terminal as it was", func(s string) bool { return strings.HasSuffix(s, leaveScreen) })
			if attr := tt.Settings(t); attr.Lflag&unix.ICANON == 0 || attr.Lflag&unix.ISIG == 0 {
				t.Error("the terminal is left in raw mode")
			}
		})
	}
}

// TestTopWithoutColour checks that NO_COLOR leaves nothing but the movements.
func TestTopWithoutColour(t *testing.T) {
	serveHere(t)
	t.Setenv("NO_COLOR", "1")
	tt, _, done := startTop(t)
	text := tt.WaitFor(t, "a page", has("HOTTEST"))
	if strings.Contains(text, "m HOST") || strings.Contains(text, "\x1b[1m") {
		t.Errorf("the page has letters of another kind: %q", text)
	}
	tt.Press(t, "q")
	<-done
}

// TestLengthyTopOutlivesSidecar checks that top goes on while its sidecar is restarted.
func TestLengthyTopOutlivesSidecar(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	socket := filepath.Join(tempDir(t), "s")
	p := runSidecarAt(t, socket, "--node", "host1")
	tt, _, done := startTop(t, "--socket", socket)
	tt.WaitFor(t, "rates", has("host1  in           0"))
	p.terminate()
	tt.WaitFor(t, "the trouble", has("NO ANSWER: unavailable"))
	runSidecarAt(t, socket, "--node", "host1")
	tt.WaitFor(t, "rates again", func(s string) bool { return !has("NO ANSWER")(s) && has("host1  in           0")(s) })
	tt.Press(t, "q")
	if status := <-done; status != exitDone {
		t.Errorf("status %d", status)
	}
}

// TestTopSuspended checks Ctrl-Z and SIGTSTP under a shell: each gives the terminal back,
// stops top, and fg brings the page again.
func TestTopSuspended(t *testing.T) {
	socket := serveHere(t)
	for _, how := range []string{"Ctrl-Z", "SIGTSTP"} {
		t.Run(how, func(t *testing.T) {
			tt := pty.Open(t)
			tt.Resize(t, 80, 24)
			shell := exec.Command("bash", "--norc", "-i")
			shell.Env = append(os.Environ(), "PS1=$ ", "TERM=xterm", "CACHESIDECAR_SOCKET="+socket)
			shell.Stdin, shell.Stdout, shell.Stderr = tt.Its, tt.Its, tt.Its
			shell.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
			testenv.Must(t, shell.Start())
			t.Cleanup(func() { _ = shell.Process.Kill(); _ = shell.Wait() })
			pages := func(n int) func(string) bool {
				return func(s string) bool {
					_, after, _ := strings.Cut(s, strings.Repeat(enterScreen, 1))
					return strings.Count(s, enterScreen) >= n && strings.Contains(after, "HOTTEST") && has("q quit")(s)
				}
			}
			tt.Press(t, fmt.Sprintf("%s top --interval 200ms\n", binary()))
			tt.WaitFor(t, "a page", pages(1))
			if how == "Ctrl-Z" {
				tt.Press(t, "\x1a")
			} else if err := syscall.Kill(childOf(t, shell.Process.Pid), syscall.SIGTSTP); err != nil {
				t.Fatal(err)
			}
			tt.WaitFor(t, "the shell", func(s string) bool {
				at := strings.LastIndex(s, leaveScreen)
				return at > 0 && strings.Contains(s[at:], "Stopped")
			})
			tt.Press(t, "fg\n")
			tt.WaitFor(t, "the page again", pages(2))
			tt.Press(t, "q")
			tt.WaitFor(t, "its end", func(s string) bool {
				at := strings.LastIndex(s, leaveScreen)
				return strings.Count(s, leaveScreen) >= 2 && strings.Contains(s[at:], "$ ")
			})
			tt.Press(t, "echo status $?\n")
			tt.WaitFor(t, "its status", func(s string) bool { return strings.Contains(s, "status 0") })
			tt.Press(t, "exit\n")
		})
	}
}

// childOf returns the only child of a process.
func childOf(t *testing.T, pid int) (child int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	testenv.Must(t, err)
	if _, err := fmt.Sscan(string(bytes.TrimSpace(b)), &child); err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	return child
}

// TestTopOnce checks one page without a terminal, and what is refused.
func TestTopOnce(t *testing.T) {
	socket := serveHere(t)
	out := mustRun(t, "top", "--once", "--interval", "200ms")
	for _, want := range []string{"cachesidecar top on host1: 1 of 1 hosts, every 200ms", "\nhost1  in           0", "\nHOTTEST "} {
		if !strings.Contains(out, want) {
			t.Errorf("the page lacks %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") || strings.Contains(out, "q quit") {
		t.Errorf("the page is for a terminal: %q", out)
	}
	for line, want := range map[string]string{
		"top":                         `stdin and stdout are no terminal: give --once for one page, or use "cachesidecar stats --cluster --json"`,
		"top --once --interval 199ms": `--interval "199ms": give 200ms to 1h`,
		"top --once --interval 1h1ms": `--interval "1h1ms": give 200ms to 1h`,
	} {
		command(t, "", strings.Fields(line)...).fails(t, line, exitUsage, want)
	}
	if o := command(t, "", "top", "--once", "--socket", socket+"-none"); o.status != exitConnect {
		t.Errorf("without a sidecar: %v", o)
	}
}
