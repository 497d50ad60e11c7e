// Package c tests cachesidecar.h, the reader of the shared memory for C programs.
package c

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zeebo/xxh3"
)

// regions are the golden regions of package shm.
var regions = filepath.Join("..", "..", "internal", "shm", "testdata", "regions")

// compile builds testdata/read.c with the sanitizers, and returns the program.
func compile(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("install gcc (Debian: gcc libc6-dev) to test the reader in C")
	}
	program := filepath.Join(t.TempDir(), "read")
	out, err := exec.Command("gcc", "-std=gnu11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-g",
		"-fsanitize=address,undefined", "-fno-sanitize-recover", "-o", program,
		filepath.Join("testdata", "read.c")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// ask sends lines to the program and returns its answers.
func ask(t *testing.T, program string, lines []string) []string {
	t.Helper()
	cmd := exec.Command(program)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	var errors bytes.Buffer
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &errors)
	}
	answers := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(answers) != len(lines) {
		t.Fatalf("%d answers to %d lines", len(answers), len(lines))
	}
	return answers
}

// TestHash compares the hash with that of Go, for all lengths in which it differs.
func TestHash(t *testing.T) {
	var lines, want []string
	for n := range 4200 {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(i*131 + 7)
		}
		for _, seed := range []uint64{0, 5, 1<<64 - 3} {
			if n > 1100 && n%97 != 0 {
				continue
			}
			lines = append(lines, fmt.Sprintf("hash %d %d", seed, n))
			want = append(want, fmt.Sprintf("%016x", xxh3.HashSeed(b, seed)))
		}
	}
	for i, got := range ask(t, compile(t), lines) {
		if got != want[i] {
			t.Fatalf("%s: %s, want %s", lines[i], got, want[i])
		}
	}
}

// TestRegions reads the golden regions as package shm does.
func TestRegions(t *testing.T) {
	program := compile(t)
	text, err := os.ReadFile(filepath.Join(regions, "reads.json"))
	if err != nil {
		t.Fatal(err)
	}
	var reads []struct {
		Region, Namespace, Key, Want, Sum string
		Now                               int64
		Version                           uint64
		Flags                             uint32
		Length                            int
	}
	if err := json.Unmarshal(text, &reads); err != nil {
		t.Fatal(err)
	}
	dir, files := t.TempDir(), map[string]bool{}
	var lines []string
	for _, r := range reads {
		file := filepath.Join(dir, r.Region)
		if !files[r.Region] {
			unzip(t, filepath.Join(regions, r.Region+".gz"), file)
			files[r.Region] = true
		}
		lines = append(lines, fmt.Sprintf("%s %s %d %s", file, r.Namespace, r.Now, r.Key))
	}
	for i, got := range ask(t, program, lines) {
		want := reads[i].Want
		if want == "hit" {
			want = fmt.Sprintf("hit %d %d %d %s", reads[i].Version, reads[i].Flags, reads[i].Length, reads[i].Sum)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", lines[i], got, want)
		}
	}
}

func unzip(t *testing.T, from, to string) {
	t.Helper()
	f, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
