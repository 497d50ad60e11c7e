package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// tested has what the tests take without a fault.
type tested struct {
	took    map[string]time.Duration // by package
	imports map[string][]string      // by package: all that its tests link
}

// quick is up to where packages share a time limit, and run side by side.
const quick = 20 * time.Second

// goFiles returns the absolute names of a package's files, without its tests.
func goFiles(pkg string) ([]string, error) {
	out, err := exec.Command("go", "list", "-json=Dir,GoFiles", "./"+pkg).Output()
	if err != nil {
		return nil, explain(err)
	}
	var p struct {
		Dir     string
		GoFiles []string
	}
	if err := json.Unmarshal(out, &p); err != nil {
		return nil, err
	}
	for i := range p.GoFiles {
		p.GoFiles[i] = filepath.Join(p.Dir, p.GoFiles[i])
	}
	return p.GoFiles, nil
}

func explain(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("go: %w: %s", err, exit.Stderr)
	}
	return err
}

func compiles(temp, pkg string, m *mutant) bool {
	file, err := overlay(temp, m)
	return err == nil && exec.Command("go", "build", "-overlay", file, "./"+pkg).Run() == nil
}

// baseline runs all tests without a fault.
func baseline() (*tested, error) {
	t := &tested{took: map[string]time.Duration{}, imports: map[string][]string{}}
	out, err := exec.Command("go", "list", "-test", "-deps", "-json=ImportPath,ForTest,Deps", "./...").Output()
	if err != nil {
		return nil, explain(err)
	}
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var p struct {
			ImportPath string
			Deps       []string
		}
		if err := d.Decode(&p); err != nil {
			return nil, err
		}
		if pkg, ok := strings.CutSuffix(p.ImportPath, ".test"); ok {
			for _, dep := range p.Deps {
				dep, _, _ = strings.Cut(dep, " ") // a package is built again for a test
				t.imports[pkg] = append(t.imports[pkg], dep)
			}
		}
	}
	failed, err := goTest("", "", 0, []string{"./..."}, t.took)
	if err == nil && failed != "" {
		err = fmt.Errorf("%s fails without a fault", failed)
	}
	return t, err
}

// find returns the test that finds the fault; empty: none.
func (t *tested) find(temp string, m *placed) (string, error) {
	file, err := overlay(temp, &m.mutant)
	if err != nil {
		return "", err
	}
	for _, pkgs := range t.order(m.pkg) {
		limit := time.Duration(0)
		for _, p := range pkgs {
			limit = max(limit, t.took[p])
		}
		by, err := goTest(file, "", 2*limit+time.Minute, pkgs, nil)
		if err != nil {
			return "", err
		}
		if by == "" {
			continue
		}
		pkg, test, _ := strings.Cut(by, " ")
		again, err := goTest("", "^"+test+"$", 2*limit+time.Minute, []string{pkg}, nil)
		if err != nil {
			return "", err
		}
		if again == "" {
			return by, nil
		}
		fmt.Printf("%s fails without the fault too\n", by)
	}
	return "", nil
}

// order returns the packages that link a package, in steps: itself, those that are quick,
// and each of the others.
func (t *tested) order(pkg string) (steps [][]string) {
	var own, fast, slow []string
	is := func(p string) bool { return strings.HasSuffix(p, "/"+pkg) }
	for p, deps := range t.imports {
		switch {
		case is(p):
			own = append(own, p)
		case !slices.ContainsFunc(deps, is):
		case t.took[p] < quick:
			fast = append(fast, p)
		default:
			slow = append(slow, p)
		}
	}
	slices.SortFunc(slow, func(a, b string) int { return int(t.took[a] - t.took[b]) })
	slices.Sort(fast)
	for _, s := range [][]string{own, fast} {
		if len(s) > 0 {
			steps = append(steps, s)
		}
	}
	for _, p := range slow {
		steps = append(steps, []string{p})
	}
	return steps
}

// goTest runs tests up to the first failure and returns its package and test. It notes how
// long each package took.
func goTest(
	overlay, pattern string, limit time.Duration, pkgs []string, took map[string]time.Duration,
) (string, error) {
	args := []string{"test", "-json", "-count=1"}
	if took == nil {
		args = append(args, "-failfast")
	}
	if limit > 0 {
		args = append(args, "-timeout", limit.String())
	}
	if pattern != "" {
		args = append(args, "-run", pattern)
	}
	cmd := exec.Command("go", append(args, pkgs...)...)
	cmd.Env = os.Environ()
	if overlay != "" { // tests build the command, with the fault in it
		cmd.Env = append(cmd.Env, "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -overlay="+overlay))
	}
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return "", err
	}
	failed := ""
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var e struct {
			Action, Package, Test string
			Elapsed               float64
		}
		if err := d.Decode(&e); err != nil {
			return "", err
		}
		top, _, _ := strings.Cut(e.Test, "/")
		switch {
		case e.Action == "fail" && (failed == "" || !strings.Contains(failed, " ")) && e.Package != "":
			failed = strings.TrimSpace(e.Package + " " + top)
		case e.Action == "pass" && e.Test == "" && took != nil:
			took[e.Package] = time.Duration(e.Elapsed * float64(time.Second))
		}
	}
	if err != nil && failed == "" {
		return "", fmt.Errorf("go test: %w: %s", err, exit.Stderr)
	}
	return failed, nil
}
