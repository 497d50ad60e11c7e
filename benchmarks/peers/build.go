package peers

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

const product = "github.com/cachesidecar/cachesidecar"

// Build compiles the sidecar, as its own module has it, and the echo server
// into dir.
func Build(ctx context.Context, dir string) error {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", product).Output()
	if err != nil {
		return fmt.Errorf("where the module %s is: %w: run this in the folder benchmarks", product, err)
	}
	for _, b := range []struct{ in, out, pkg string }{
		{strings.TrimSpace(string(root)), "cachesidecar", "./cmd/cachesidecar"},
		{"", "echo", product + "/benchmarks/cmd/echo"},
	} {
		if err := build(ctx, b.in, filepath.Join(dir, b.out), b.pkg); err != nil {
			return err
		}
	}
	return nil
}

// BuildMember compiles the nodes of libraries into dir.
func BuildMember(ctx context.Context, dir string) error {
	return build(ctx, "", filepath.Join(dir, memberBinary), product+"/benchmarks/cmd/member")
}

func build(ctx context.Context, in, out, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, pkg)
	cmd.Dir = in
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, said)
	}
	return nil
}
