package peers

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

const product = "github.com/cachesidecar/cachesidecar"

// Root returns the folder of the sidecar's own module.
func Root(ctx context.Context) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", product).Output()
	if err != nil {
		return "", fmt.Errorf("where the module %s is: %w: run this in the folder benchmarks", product, err)
	}
	return strings.TrimSpace(string(root)), nil
}

// Build compiles into dir: the sidecar, with the go.mod of its own module, and the
// servers that show the upper limit of a Go program.
func Build(ctx context.Context, dir string) error {
	root, err := Root(ctx)
	if err != nil {
		return err
	}
	for _, b := range []struct{ in, out, pkg string }{
		{root, "cachesidecar", "./cmd/cachesidecar"},
		{"", "echo", product + "/benchmarks/cmd/echo"},
		{"", "bare", product + "/benchmarks/cmd/bare"},
		{"", "fanout", product + "/benchmarks/cmd/fanout"},
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
