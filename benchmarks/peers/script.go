package peers

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Scripts are the programs that measure clients in other languages.
type Scripts struct {
	python, node string // interpreters
	folder       string // of the scripts
	library      string // the folder of the Python client, built
}

// debianPython has what the other clients of Python need, as Debian packages them.
const (
	debianPython  = "python3 python3-dev python3-setuptools python3-msgpack python3-redis python3-hiredis python3-pymemcache gcc"
	pythonModules = "import msgpack, redis, hiredis, pymemcache, setuptools"
)

// OpenScripts looks for all that the scripts need, and builds the Python client, with its
// extension, into a copy below dir. Errors wrap ErrNotInstalled where something is missing.
func OpenScripts(ctx context.Context, dir, python, node string) (*Scripts, error) {
	root, err := Root(ctx)
	if err != nil {
		return nil, err
	}
	s := &Scripts{python: python, node: node, folder: filepath.Join(root, "benchmarks", "languages")}
	if said, err := exec.CommandContext(ctx, python, "-c", pythonModules).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("what %s needs is %w (%s): apt-get install %s", python, ErrNotInstalled, lastLine(said, err), debianPython)
	}
	if said, err := exec.CommandContext(ctx, node, "--version").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s is %w (%s): install Node 20 or later", node, ErrNotInstalled, lastLine(said, err))
	}
	for _, need := range []struct{ path, remedy string }{
		{filepath.Join(s.folder, "node_modules"), "npm ci in benchmarks/languages"},
		{filepath.Join(root, "clients", "node", "dist"), "npm ci and npm run build in clients/node"},
	} {
		if _, err := os.Stat(need.path); err != nil {
			return nil, fmt.Errorf("%s is %w: %s", need.path, ErrNotInstalled, need.remedy)
		}
	}
	return s, s.build(ctx, filepath.Join(root, "clients"), filepath.Join(dir, "clients"))
}

// build copies the Python client, with the header of the one for C, and compiles its extension
// beside it. A client that cannot be compiled is one without its extension.
func (s *Scripts) build(ctx context.Context, from, to string) error {
	for _, language := range []string{"c", "python"} {
		if err := os.CopyFS(filepath.Join(to, language), os.DirFS(filepath.Join(from, language))); err != nil {
			return fmt.Errorf("a copy of the client: %w", err)
		}
	}
	cmd := exec.CommandContext(ctx, s.python, "setup.py", "-q", "build_ext", "--inplace")
	cmd.Dir = filepath.Join(to, "python")
	said, err := cmd.CombinedOutput()
	s.library = filepath.Join(cmd.Dir, "src")
	if built, _ := filepath.Glob(filepath.Join(s.library, "cachesidecar", "_native*.so")); err != nil || len(built) == 0 {
		return fmt.Errorf("the extension of the Python client is not built (%v): apt-get install %s\n%s", err, debianPython, said)
	}
	return nil
}

// Figure is one line that a script prints: its versions, or the result of a side.
type Figure struct {
	Versions map[string]string `json:"versions"`
	Case     string            `json:"case"`
	Side     string            `json:"side"`
	Calls    int64             `json:"calls"`
	Seconds  float64           `json:"seconds"`
}

// Python runs the script in Python; pure turns the client's extension off.
func (s *Scripts) Python(ctx context.Context, pure bool, args ...string) ([]Figure, error) {
	args = append([]string{filepath.Join(s.folder, "bench.py")}, args...)
	env := []string{"PYTHONPATH=" + s.library, "PYTHONDONTWRITEBYTECODE=1"}
	if pure {
		args, env = append(args, "--pure"), append(env, "CACHESIDECAR_PURE=1")
	}
	return figures(ctx, env, s.python, args)
}

// Node runs the script in Node.
func (s *Scripts) Node(ctx context.Context, args ...string) ([]Figure, error) {
	return figures(ctx, nil, s.node, append([]string{filepath.Join(s.folder, "bench.mjs")}, args...))
}

// figures runs a script to its end and returns the lines that it prints.
func figures(ctx context.Context, env []string, program string, args []string) (list []Figure, err error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), env...)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	name := filepath.Base(args[0])
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(complaint.Bytes())), ctx.Err())
	}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var f Figure
		if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
			return nil, fmt.Errorf("%s prints %q: %w", name, lines.Bytes(), err)
		}
		list = append(list, f)
	}
	return list, nil
}

// lastLine returns the last line that a program said, or else its error.
func lastLine(said []byte, err error) string {
	lines := strings.Split(strings.TrimSpace(string(said)), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return last
	}
	return err.Error()
}
