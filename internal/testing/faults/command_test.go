package faults

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/proctest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

var previous = flag.String("faults.previous", "HEAD^",
	"the revision whose command shares a cluster with this tree's; the tree may have changes that are not committed")

// root is the root of this tree, seen from the folder in which the tests run.
const root = "../../.."

// built builds this tree's command, and returns its path.
func built(t testing.TB) string {
	t.Helper()
	path, err := testenv.Build(t.TempDir())
	testenv.Must(t, err)
	return path
}

// begins is a file that says since which change there are the messages of internal/wire/testdata/version1.json. A
// program from before that change has no place in a cluster with this one.
const begins = "internal/wire/testdata/begins"

// builtPrevious builds the command of the revision of -faults.previous, and returns its
// path. The files of the revision are in a folder of the test: the work tree and the
// repository stay as they are.
func builtPrevious(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	tree, err := exec.Command("git", "-C", root, "archive", "--format=tar", *previous).Output()
	if err != nil {
		testenv.Needs(t, "no files of the revision "+*previous+" (git archive: "+reason(err)+
			"): install git, run in a clone with history (git fetch --deepen=1), or name another by -faults.previous")
	}
	cmd := exec.Command("tar", "-x", "-C", dir)
	cmd.Stdin = bytes.NewReader(tree)
	if err := cmd.Run(); err != nil {
		t.Fatalf("tar: %s", reason(err))
	}
	now, err := os.ReadFile(filepath.Join(root, begins))
	testenv.Must(t, err)
	if then, _ := os.ReadFile(filepath.Join(dir, begins)); !bytes.Equal(then, now) { // before the first there is none
		t.Skipf("the messages begin anew after the revision %s (%s): no program of before is in use", *previous, begins)
	}
	return build(t, dir)
}

// build builds the command of a tree.
func build(t testing.TB, tree string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cachesidecar")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", path, "./cmd/cachesidecar")
	cmd.Dir = tree
	if _, err := cmd.Output(); err != nil {
		t.Fatalf("go build in %s: %s", tree, reason(err))
	}
	return path
}

// reason returns an error with what its process wrote to stderr.
func reason(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return err.Error() + ": " + strings.TrimSpace(string(exit.Stderr))
	}
	return err.Error()
}

// commandLine returns the words that start the node's sidecar, and its variables.
func (n *node) commandLine() (words, env []string) {
	n.g.t.Helper()
	if n.program == "" {
		text, err := json.Marshal(n.spec)
		testenv.Must(n.g.t, err)
		return []string{os.Args[0]}, []string{asSidecar + "=" + string(text)}
	}
	n.configure()
	sp := &n.spec
	words = []string{
		n.program, "run", "--config", n.config(), "--node", sp.Node, "--socket", sp.Socket, "--bind", sp.Bind,
		"--join", strings.Join(sp.Join, ","), "--max-staleness", sp.MaxStaleness.String(), "--l1-size", "4MiB",
		"--l2-size", "32MiB", "--http", "off", "--log-format", "text",
	}
	for _, s := range [][2]string{
		{"--cluster-key-file", sp.Keys}, {"--tls-cert", sp.TLS.Cert}, {"--tls-key", sp.TLS.Key}, {"--tls-ca", sp.TLS.CA},
	} {
		if s[1] != "" {
			words = append(words, s[0], s[1])
		}
	}
	return words, nil
}

// config is the path of the node's configuration file, which has only namespaces.
func (n *node) config() string { return filepath.Join(n.g.dir, n.spec.Node+".yaml") }

// configure writes the node's configuration file, in one step.
func (n *node) configure() {
	n.g.t.Helper()
	text := "namespaces: {}\n"
	if n.spec.Namespaces != "" {
		text = "namespaces:\n" + strings.ReplaceAll("\n"+strings.TrimSpace(n.spec.Namespaces), "\n", "\n  ") + "\n"
	}
	next := n.config() + "-"
	testenv.Must(n.g.t, errors.Join(os.WriteFile(next, []byte(text), 0o600), os.Rename(next, n.config())))
}

// command runs a command of a program against the node's sidecar, and returns what it
// prints to stdout. The error has what it prints to stderr.
func (n *node) command(program string, words ...string) (string, error) {
	cmd := exec.CommandContext(testenv.Context(n.g.t), program, append(words, "--socket", n.spec.Socket)...)
	cmd.Env, cmd.WaitDelay = scrubbed(), time.Second
	proctest.EndWithParent(cmd)
	out, err := cmd.Output()
	if err != nil {
		err = errors.New(strings.Join(words, " ") + ": " + reason(err))
	}
	return string(out), err
}
