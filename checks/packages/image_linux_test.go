package packages

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// nonroot is the user of the image.
const nonroot = 65532

// container is what an engine would run: a folder as root, without /proc, /dev, /tmp and
// /etc, and a user without rights.
type container struct {
	root string
	env  []string
}

// command returns a command in the container.
func (c *container) command(args ...string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Path, cmd.Err = args[0], nil // in the new root
	cmd.Dir, cmd.Env = "/", c.env
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Chroot: c.root, Credential: &syscall.Credential{Uid: nonroot, Gid: nonroot, NoSetGroups: false},
	}
	return cmd
}

// TestImage reads the Dockerfile with Docker's own parser, runs its build, and runs the
// result as the image would: in an empty root, as a user without rights, without /dev/shm
// or anything else. No engine builds the image here.
func TestImage(t *testing.T) {
	if os.Getuid() != 0 {
		testenv.Needs(t, "only root can make an empty root: run the test as root")
	}
	f, err := os.Open("../../deploy/docker/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	parsed, err := parser.Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	stages, _, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(stages) != 2 || len(parsed.Warnings) > 0 || stages[1].BaseName != "scratch" {
		t.Fatalf("%d stages, the last one from %s; %v", len(stages), stages[len(stages)-1].BaseName, parsed.Warnings)
	}
	c := &container{root: t.TempDir()}
	if err := os.Chmod(c.root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, s := range stages[0].Commands {
		r, ok := s.(*instructions.RunCommand)
		if ok && strings.Contains(strings.Join(r.CmdLine, " "), "go build") {
			build := exec.Command("sh", "-c", strings.ReplaceAll(r.CmdLine[0], "-o /cachesidecar", "-o "+c.root+"/cachesidecar"))
			build.Dir, build.Env = "../..", append(os.Environ(), "VERSION=v9.8.7", "GOFLAGS=")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%q: %v\n%s", r.CmdLine, err, out)
			}
		}
	}
	binary(t, filepath.Join(c.root, "cachesidecar"))
	var health, entry, args []string
	user, owner := "", map[string]string{} // of folders in the image
	for _, s := range stages[1].Commands {
		switch s := s.(type) {
		case *instructions.CopyCommand:
			owner[s.DestPath] = s.Chown
		case *instructions.UserCommand:
			user = s.User
		case *instructions.EnvCommand:
			for _, e := range s.Env {
				c.env = append(c.env, e.Key+"="+e.Value)
			}
		case *instructions.HealthCheckCommand:
			health = s.Health.Test
		case *instructions.EntrypointCommand:
			entry = s.CmdLine
		case *instructions.CmdCommand:
			args = s.CmdLine
		case *instructions.VolumeCommand:
			if owner[s.Volumes[0]] != "65532:65532" {
				t.Errorf("the volume %s belongs to %q: the sidecar could not make its socket there", s.Volumes[0], owner[s.Volumes[0]])
			}
			volume := filepath.Join(c.root, s.Volumes[0])
			if err := os.MkdirAll(volume, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(volume, nonroot, nonroot); err != nil {
				t.Fatal(err)
			}
		}
	}
	if user != "65532:65532" || len(health) < 2 || health[0] != "CMD" {
		t.Fatalf("user %q, health %q", user, health)
	}
	c.lives(t, slices.Concat(entry, args), health[1:])
	c.withKey(t)
}

// lives runs the sidecar in the container, sees it serve, and ends it.
func (c *container) lives(t *testing.T, run, health []string) {
	t.Helper()
	var log bytes.Buffer
	cmd := c.command(run...)
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }() // ends with the process
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	defer func() {
		if t.Failed() {
			t.Logf("%q: %s", run, &log)
		}
	}()
	testenv.Eventually(t, "the health check succeeds", func() bool { return c.command(health...).Run() == nil })
	for _, step := range []struct{ args, want string }{{"set greeting hello", ""}, {"get greeting", "hello"}} {
		out, err := c.command(append([]string{"/cachesidecar"}, strings.Fields(step.args)...)...).CombinedOutput()
		if err != nil || string(out) != step.want {
			t.Fatalf("%s: %v %q", step.args, err, out)
		}
	}
	if regexp.MustCompile(`"level":"ERROR"`).Match(log.Bytes()) {
		t.Errorf("the log has errors: %s", &log)
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("it ends with %v", err)
		}
	case <-testenv.Expired():
		t.Error("it does not end")
	}
}

// withKey runs a sidecar with the secret of the cluster as Kubernetes mounts it: a link to a
// file of root that the group may read.
func (c *container) withKey(t *testing.T) {
	t.Helper()
	data := filepath.Join(c.root, "etc/cachesidecar-key/..data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(data, "cluster.key")
	run(t, filepath.Join(c.root, "cachesidecar"), "key", "generate", "--out", key)
	if err := os.Chown(key, 0, nonroot); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(key, 0o440); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..data/cluster.key", filepath.Join(c.root, "etc/cachesidecar-key/cluster.key")); err != nil {
		t.Fatal(err)
	}
	c.lives(t, []string{
		"/cachesidecar", "run", "--node", "n", "--bind", "127.0.0.1:17946", "--peer-bind", "127.0.0.1:17947", "--http", "off",
		"--cluster-key-file", "/etc/cachesidecar-key/cluster.key",
	}, []string{"/cachesidecar", "health"})
}
