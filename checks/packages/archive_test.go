// Package packages builds what is released, installs it and runs it: the archives, the
// image as far as that works without an engine, and the Debian package under a real
// systemd.
package packages

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/checks/sidecars"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func TestMain(m *testing.M) { sidecars.Main(m) }

// pack runs deploy/package and returns the folder with what it has built.
func pack(t *testing.T, args ...string) string {
	t.Helper()
	out := t.TempDir()
	packAs(t, out, "v9.8.7", args...)
	return out
}

// packAs makes a version of it, in a folder.
func packAs(t *testing.T, out, version string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		testenv.Needs(t, "there is no git: install the Debian package git")
	}
	cmd := exec.Command("../../deploy/package", args...)
	cmd.Env = append(os.Environ(), "OUT="+out, "VERSION="+version, "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("deploy/package %q: %v\n%s", args, err, text)
	}
}

// run runs a command and returns what it prints.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// TestArchive builds an archive twice, and compares the bytes. It unpacks one, checks that
// everything is there, and runs the command.
func TestArchive(t *testing.T) {
	const name = "cachesidecar-v9.8.7-linux-amd64"
	out, again := pack(t, "archive", "linux/amd64"), pack(t, "archive", "linux/amd64")
	one, err := os.ReadFile(filepath.Join(out, name+".tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	two, err := os.ReadFile(filepath.Join(again, name+".tar.gz"))
	if err != nil || !bytes.Equal(one, two) {
		t.Errorf("two builds give %d and %d bytes that differ, %v", len(one), len(two), err)
	}
	check := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
	check.Dir = out
	if text, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
	dir := filepath.Join(out, name)
	tour(t, out)
	for _, file := range []string{
		"LICENSE", "README.md", "CHANGELOG.md", "docs/OPERATIONS.md", "deploy/systemd/cachesidecar.service",
		"man/cachesidecar.1", "completion/cachesidecar.bash", "completion/cachesidecar.zsh", "completion/cachesidecar.fish",
	} {
		if st, err := os.Stat(filepath.Join(dir, file)); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v", file, err)
		}
	}
	binary(t, filepath.Join(dir, "cachesidecar"))
	licences, err := os.ReadFile(filepath.Join(dir, "THIRD-PARTY-LICENSES.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"github.com/hashicorp/memberlist v", "MPL-2.0", "Mozilla Public License", "github.com/dgraph-io/ristretto/v2 v",
		"github.com/vmihailenco/msgpack/v5 v", "github.com/urfave/cli/v2 v", "the Go standard library go1.",
	} {
		if !strings.Contains(string(licences), want) {
			t.Errorf("the licences lack %q", want)
		}
	}
}

// tour runs the lines of the page's section about the archive, in the folder of the archives.
func tour(t *testing.T, dist string) {
	t.Helper()
	page, err := os.ReadFile("../../deploy/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "## The archive\n")
	_, block, _ := strings.Cut(section, "```console\n")
	block, _, _ = strings.Cut(block, "```")
	socket := filepath.Join(t.TempDir(), "s")
	ran := 0
	for line := range strings.Lines(block) {
		cmd := exec.Command("sh", "-c", "exec "+strings.TrimPrefix(strings.TrimSpace(line), "$ "))
		cmd.Dir, cmd.Env = dist, append(os.Environ(), "CACHESIDECAR_SOCKET="+socket, "CACHESIDECAR_HTTP=off")
		switch {
		case strings.Contains(line, "cd dist"):
			continue
		case strings.Contains(line, " run"):
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			testenv.Eventually(t, "the sidecar of the archive serves", func() bool {
				health := exec.Command(filepath.Join(dist, "cachesidecar-v9.8.7-linux-amd64/cachesidecar"), "health", "--socket", socket)
				return health.Run() == nil
			})
			_ = cmd.Process.Signal(os.Interrupt)
			if err := cmd.Wait(); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		default:
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", line, err, out)
			}
		}
		ran++
	}
	if ran != 3 {
		t.Errorf("%d lines of the page were run, want 3", ran)
	}
}

// binary checks that a command is static and stripped, and knows its version.
func binary(t *testing.T, path string) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Errorf("%s is linked dynamically", path)
		}
	}
	if f.Section(".symtab") != nil || f.Section(".debug_info") != nil {
		t.Errorf("%s is not stripped", path)
	}
	if got := run(t, path, "version"); !strings.HasPrefix(got, "cachesidecar v9.8.7, protocol ") {
		t.Errorf("it says %q", got)
	}
}
