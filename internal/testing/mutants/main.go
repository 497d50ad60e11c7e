// Command mutants puts small faults into packages, one at a time, and counts how many of
// them the tests find.
//
// Inputs are the packages, how many faults, and a seed: it draws the faults on the syntax
// tree, so that they outlive a redesign. Outputs are a line for each fault, with the test
// that found it, and the sum. A fault reaches the compiler as an overlay; no file of the
// tree changes. It first runs all tests without a fault: that must pass, and gives each
// package its time limit and its turn. A failure counts only if the same test passes again
// without the fault.
//
// It runs on one goroutine, for hours. It is not a gate: many faults change nothing that a
// user sees, so only two counts of the same faults mean something.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// usual has the packages into which faults are put.
const usual = "internal/engine,internal/session," +
	"internal/memcached,l2/segment,l2/ownership,invalidation,internal/handoff,client"

func main() {
	pkgs := flag.String("packages", usual, "where to put faults, between commas")
	number := flag.Int("n", 40, "how many faults, shared evenly among the packages")
	seed := flag.Uint64("seed", 1, "draws the faults")
	list := flag.Bool("list", false, "print the faults, and run nothing")
	from := flag.Int("from", 1, "the first fault to run")
	flag.Parse()
	if err := run(strings.Split(*pkgs, ","), *number, *seed, *list, *from); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(pkgs []string, number int, seed uint64, list bool, from int) error {
	temp, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	all, err := draw(temp, pkgs, number, seed)
	if err != nil {
		return err
	}
	if list {
		for i := range all {
			fmt.Printf("%d\t%s\t%v\n", i+1, all[i].pkg, &all[i].mutant)
		}
		return nil
	}
	t, err := baseline()
	if err != nil {
		return err
	}
	found := 0
	for i := range all {
		if i+1 < from {
			continue
		}
		began := time.Now()
		by, err := t.find(temp, &all[i])
		if err != nil {
			return err
		}
		if by != "" {
			found++
		} else {
			by = "nothing"
		}
		took := time.Since(began).Seconds()
		fmt.Printf("%d\t%s\t%v\tfound by %s\t%.0f s\n", i+1, all[i].pkg, &all[i].mutant, by, took)
	}
	fmt.Printf("%d of %d faults found\n", found, len(all)-from+1)
	return nil
}

// placed is a fault with its package.
type placed struct {
	mutant
	pkg string
}

// draw returns the faults of all packages.
func draw(temp string, pkgs []string, number int, seed uint64) (all []placed, err error) {
	for i, pkg := range pkgs {
		files, err := goFiles(pkg)
		if err != nil {
			return nil, err
		}
		every, err := sites(files)
		if err != nil {
			return nil, err
		}
		n := number / len(pkgs)
		if i < number%len(pkgs) {
			n++
		}
		for _, m := range choose(every, n, seed, func(m *mutant) bool { return compiles(temp, pkg, m) }) {
			all = append(all, placed{m, pkg})
		}
	}
	return all, nil
}

// overlay writes the fault, and the file that tells the go command of it.
func overlay(temp string, m *mutant) (string, error) {
	src, err := m.apply()
	if err != nil {
		return "", err
	}
	to, file := filepath.Join(temp, "fault.go"), filepath.Join(temp, "overlay.json")
	if err := os.WriteFile(to, src, 0o600); err != nil {
		return "", err
	}
	text, err := json.Marshal(map[string]map[string]string{"Replace": {m.file: to}})
	if err != nil {
		return "", err
	}
	return file, os.WriteFile(file, text, 0o600)
}
