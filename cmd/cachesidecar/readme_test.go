package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestReadmeTour runs every command of README.md's tour in a shell, and compares the
// output with the text below the command. "…" is any text; a line of only "…" is any
// lines.
func TestReadmeTour(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 3*time.Second)
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, tour, ok := strings.Cut(string(readme), "```console\n")
	if !ok {
		t.Fatal("there is no console block")
	}
	tour, _, _ = strings.Cut(tour, "```")
	p := runSidecar(t)
	steps := strings.Split("\n"+strings.TrimSuffix(tour, "\n"), "\n$ ")[1:]
	if len(steps) < 10 {
		t.Fatalf("%d commands: the tour has shrunk", len(steps))
	}
	for _, step := range steps {
		line, want, _ := strings.Cut(step, "\n")
		sh := exec.Command("sh", "-c", line)
		sh.Env = append(os.Environ(), "PATH="+filepath.Dir(binary())+":"+os.Getenv("PATH"), "CACHESIDECAR_SOCKET="+p.socket)
		var out bytes.Buffer
		sh.Stdout, sh.Stderr = &out, &out
		_ = sh.Run() // some commands of the tour fail on purpose
		got := strings.TrimSuffix(out.String(), "\n")
		pattern := strings.ReplaceAll(regexp.QuoteMeta(want), "…", ".*")
		if !regexp.MustCompile(`^(?s:` + pattern + `)$`).MatchString(got) {
			t.Errorf("$ %s\nprints\n%s\nREADME.md says\n%s", line, got, want)
		}
	}
}

// TestLengthyReadmeHosts runs the commands of README.md's section on three hosts in one shell,
// on free ports and in a folder of their own.
func TestLengthyReadmeHosts(t *testing.T) {
	testenv.Takes(t, 15*time.Second)
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash: install it")
	}
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(readme), "### Several hosts\n")
	_, text, ok := strings.Cut(text, "```console\n")
	if !ok {
		t.Fatal("there is no console block about several hosts")
	}
	text, _, _ = strings.Cut(text, "```")
	dir := tempDir(t)
	text = strings.ReplaceAll(text, "/tmp/", dir+"/")
	for _, port := range []int{7946, 7956, 7966} {
		free := pairOfPorts(t)
		for i := range 2 {
			text = strings.ReplaceAll(text, loopback(port+i), loopback(free+i))
		}
	}
	steps := strings.Split("\n"+strings.TrimSuffix(text, "\n"), "\n$ ")[1:]
	if len(steps) < 10 {
		t.Fatalf("%d commands: the section has shrunk", len(steps))
	}
	script := "trap 'kill $(jobs -p) 2>/dev/null' EXIT\n"
	const mark = "--- next ---"
	for _, step := range steps {
		line, _, _ := strings.Cut(step, "\n")
		if strings.HasPrefix(line, "sleep ") { // as long as it takes on a busy machine
			line = `until [ "$(for h in a b c; do cachesidecar members --socket ` + dir + `/$h.sock; done | grep -c ' in ')" = 9 ]; do sleep 0.1; done`
		}
		script += "echo '" + mark + "'\n" + line + "\n"
	}
	sh := exec.CommandContext(t.Context(), bash, "-c", script+"wait\n")
	sh.Cancel = func() error { return sh.Process.Signal(syscall.SIGTERM) }
	sh.WaitDelay = time.Second
	endWithParent(sh)
	sh.Env = append(os.Environ(), "PATH="+filepath.Dir(binary())+":"+os.Getenv("PATH"))
	out, err := sh.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	blanks := regexp.MustCompile(` +`) // ports differ in their number of digits
	for i, got := range strings.Split(string(out), mark+"\n")[1:] {
		line, want, _ := strings.Cut(steps[i], "\n")
		got, want = blanks.ReplaceAllString(strings.TrimSuffix(got, "\n"), " "), blanks.ReplaceAllString(want, " ")
		if strings.HasPrefix(line, "sleep ") {
			continue // commands that come too early print an error
		}
		pattern := strings.ReplaceAll(regexp.QuoteMeta(want), "…", ".*")
		if !regexp.MustCompile(`^(?s:` + pattern + `)$`).MatchString(got) {
			t.Errorf("$ %s\nprints\n%s\nREADME.md says\n%s", line, got, want)
		}
	}
}

// pairOfPorts finds a free port whose next port is free too.
func pairOfPorts(t *testing.T) int {
	t.Helper()
	for range 100 {
		ports, err := freePorts(2)
		if err != nil {
			t.Fatal(err)
		}
		if ports[1] == ports[0]+1 {
			return ports[0]
		}
	}
	t.Fatal("no two free ports in a row")
	return 0
}
