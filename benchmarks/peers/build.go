package peers

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Build compiles the sidecar, as its own module has it, and the echo server
// into dir.
func Build(ctx context.Context, dir string) error {
	const product = "github.com/cachesidecar/cachesidecar"
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", product).Output()
	if err != nil {
		return fmt.Errorf("where the module %s is: %w: run this in the folder benchmarks", product, err)
	}
	for _, b := range []struct{ in, out, pkg string }{
		{strings.TrimSpace(string(root)), "cachesidecar", "./cmd/cachesidecar"},
		{"", "echo", product + "/benchmarks/cmd/echo"},
	} {
		cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, b.out), b.pkg)
		cmd.Dir = b.in
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build %s: %w\n%s", b.pkg, err, out)
		}
	}
	return nil
}
