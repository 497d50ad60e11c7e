package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// README.md's tour does what it shows: every command that stands there is run
// as it stands, by a shell, and prints what stands below it. "…" is any text,
// and a line of "…" alone any lines.
func TestReadmeTour(t *testing.T) {
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
		sh.Env = append(os.Environ(), "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"), "CACHESIDECAR_SOCKET="+p.socket)
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
