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

// page returns a page of the repository.
func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", name))
	testenv.Must(t, err)
	return string(text)
}

// blocks returns the blocks of a page in a language.
func blocks(t *testing.T, page, language string) (list []string) {
	t.Helper()
	for _, part := range strings.Split(page, "```"+language+"\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		list = append(list, block)
	}
	if len(list) == 0 {
		t.Fatalf("the page has no block of %s", language)
	}
	return list
}

// commands returns the commands of a block, each with what it prints.
func commands(t *testing.T, block string, least int) []string {
	t.Helper()
	steps := strings.Split("\n"+strings.TrimSuffix(block, "\n"), "\n$ ")[1:]
	if len(steps) < least {
		t.Fatalf("%d commands: the block has shrunk", len(steps))
	}
	return steps
}

// prints checks what a command has printed: "…" is any text; a line of only "…" is any lines.
func prints(t *testing.T, line, got, want string) {
	t.Helper()
	pattern := strings.ReplaceAll(regexp.QuoteMeta(want), "…", ".*")
	if !regexp.MustCompile(`^(?s:` + pattern + `)$`).MatchString(got) {
		t.Errorf("$ %s\nprints\n%s\nthe page says\n%s", line, got, want)
	}
}

// TestLengthyReadme types the first screen of README.md as it stands, in the clone: the sidecar's lines, then what a program
// in Go and one in Python do. Left out is the line with go test, which would begin anew.
func TestLengthyReadme(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 10*time.Second)
	readme, dir := page(t, "README.md"), tempDir(t)
	clone, err := filepath.Abs(filepath.Join("..", ".."))
	testenv.Must(t, err)
	env := append(os.Environ(), "GOBIN="+dir, "PATH="+dir+":"+os.Getenv("PATH"), "GOFLAGS="+os.Getenv("GOFLAGS")+" -mod=mod",
		"CACHESIDECAR_SOCKET="+filepath.Join(dir, "s"), "CACHESIDECAR_HTTP=off", "PYTHONPATH="+filepath.Join(clone, "clients/python"))
	in := func(folder, line string) *exec.Cmd {
		sh := exec.Command("sh", "-c", line)
		sh.Dir, sh.Env = folder, env
		return sh
	}
	typed := func(folder, line, want string) {
		t.Helper()
		out, err := in(folder, line).CombinedOutput()
		if err != nil {
			t.Fatalf("$ %s\n%v\n%s", line, err, out)
		}
		prints(t, line, strings.TrimSuffix(string(out), "\n"), want)
	}
	if out, err := in(clone, "go list -export ./cmd/cachesidecar").CombinedOutput(); err != nil { // compiles: go run's longest part
		t.Fatalf("%v\n%s", err, out)
	}
	console := blocks(t, readme, "console")
	for _, step := range commands(t, console[0], 5) {
		line, want, _ := strings.Cut(step, "\n")
		line, _, _ = strings.Cut(line, "#")
		switch line = strings.TrimSpace(line); {
		case strings.HasPrefix(line, "go test"):
		case strings.HasSuffix(line, " &"):
			run := in(clone, "exec "+strings.TrimSuffix(line, " &"))
			run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // go run does not end what it runs
			p := launch(t, run)
			t.Cleanup(func() { _ = syscall.Kill(-run.Process.Pid, syscall.SIGKILL) })
			p.waitFor("the sidecar to serve", p.log, func(log string) bool { return strings.Contains(log, `"msg":"serving"`) })
		default:
			typed(clone, line, want)
		}
	}

	app := filepath.Join(dir, "app")
	code := blocks(t, readme, "go")[0]
	program := "package main\n\nimport (\n\t\"context\"\n\t\"fmt\"\n\n\t\"github.com/cachesidecar/cachesidecar/client\"\n)\n\n" +
		"func loadFromDatabase(_ context.Context, key string) ([]byte, error) { return []byte(\"row of \" + key), nil }\n\n" +
		"func main() {\n\tctx := context.Background()\n" + strings.ReplaceAll(code, "…", "if err != nil {\n\tpanic(err)\n}") +
		"fmt.Printf(\"%s %v\\n\", user.Value, err)\n}\n"
	testenv.Must(t, os.Mkdir(app, 0o700))
	for name, text := range map[string]string{
		"main.go": program, "go.mod": "module app\n", "go.sum": page(t, "go.sum"),
		"app.py": "def load_from_database(key):\n    return 'row of ' + key\n\n" + blocks(t, readme, "python")[0] + "print(user)\n",
	} {
		testenv.Must(t, os.WriteFile(filepath.Join(app, name), []byte(text), 0o600))
	}
	for _, line := range commands(t, console[1], 3) {
		if line = strings.ReplaceAll(line, "/path/to/the/clone", clone); strings.HasPrefix(line, "go mod edit") {
			typed(app, line, "")
		}
	}
	typed(app, "go run .", "row of user:42 <nil>")
	if err := in(app, "python3 -c 'import msgpack'").Run(); err != nil {
		t.Skip("there is no Python with msgpack: install python3-msgpack")
	}
	typed(app, "cachesidecar del user:42", "")
	typed(app, "python3 app.py", "row of user:42")
}

// TestTour runs every command of docs/TOUR.md in a shell, and compares the output with the text below the command.
func TestTour(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 3*time.Second)
	p := runSidecar(t)
	for _, step := range commands(t, blocks(t, page(t, "docs/TOUR.md"), "console")[0], 10) {
		line, want, _ := strings.Cut(step, "\n")
		sh := exec.Command("sh", "-c", line)
		sh.Env = append(os.Environ(), "PATH="+filepath.Dir(binary())+":"+os.Getenv("PATH"), "CACHESIDECAR_SOCKET="+p.socket)
		var out bytes.Buffer
		sh.Stdout, sh.Stderr = &out, &out
		_ = sh.Run() // some commands of the tour fail on purpose
		prints(t, line, strings.TrimSuffix(out.String(), "\n"), want)
	}
}

// TestLengthyTourHosts runs the commands of the tour's section on three hosts in one shell, on free ports and in a folder
// of their own.
func TestLengthyTourHosts(t *testing.T) {
	testenv.Takes(t, 15*time.Second)
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash: install it")
	}
	text := blocks(t, page(t, "docs/TOUR.md"), "console")[1]
	dir := tempDir(t)
	text = strings.ReplaceAll(text, "/tmp/", dir+"/")
	for _, port := range []int{7946, 7956, 7966} {
		free := pairOfPorts(t)
		for i := range 2 {
			text = strings.ReplaceAll(text, loopback(port+i), loopback(free+i))
		}
	}
	steps := commands(t, text, 10)
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
		prints(t, line, got, want)
	}
}

// pairOfPorts finds a free port whose next port is free too.
func pairOfPorts(t *testing.T) int {
	t.Helper()
	for range 100 {
		ports, err := freePorts(2)
		testenv.Must(t, err)
		if ports[1] == ports[0]+1 {
			return ports[0]
		}
	}
	t.Fatal("no two free ports in a row")
	return 0
}
