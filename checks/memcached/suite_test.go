package memcached

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

var (
	suiteFolder = flag.String("suite", os.Getenv("MEMCACHED_SUITE"),
		"the folder of memcached's source, with its t/; empty: Debian's source package")
	draft = flag.Bool("draft", false, "run all files of the suite, and print a line of the table for each")
)

// fileTime is how long one file of the suite may take: some wait for time itself.
const fileTime = 3 * time.Minute

// suiteServers is how many sidecars, which start slowly, share the files.
const suiteServers = 3

// TestSuite runs memcached's own test suite and holds each of its files to the table.
func TestSuite(t *testing.T) {
	if _, err := exec.LookPath("perl"); err != nil {
		testenv.Needs(t, "there is no perl: install the Debian package perl")
	}
	folder := prepared(t, source(t))
	files, err := filepath.Glob(filepath.Join(folder, "t", "*.t"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has no t/*.t, %v", folder, err)
	}
	tab := readTable(t)
	var free chan string // nil: each file has a server of its own
	if *targetName == "sidecars" {
		free = make(chan string, suiteServers)
		for range suiteServers {
			free <- oneServer(t)
		}
	}
	for _, path := range files {
		file := filepath.Base(path)
		must, known := tab[file][*targetName]
		delete(tab, file)
		if !known && !*draft {
			t.Errorf("%s lacks %s", tablePath, file)
		}
		if (!known || must.apart != "") && !*draft {
			continue
		}
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			if free == nil {
				checkOutcome(t, file, must, runFile(t, folder, file, oneServer(t)))
				return
			}
			if file == "stats.t" { // it counts from the start of its server
				checkOutcome(t, file, must, runFile(t, folder, file, oneServer(t)))
				return
			}
			address := <-free
			defer func() { free <- address }()
			checkOutcome(t, file, must, runFile(t, folder, file, address))
		})
	}
	for _, file := range slices.Sorted(maps.Keys(tab)) {
		t.Errorf("%s has %s, and the suite does not", tablePath, file)
	}
}

// checkOutcome holds what a file has done to the table.
func checkOutcome(t *testing.T, file string, must verdict, o outcome) {
	t.Helper()
	line := fmt.Sprintf("%s | %s | passes", file, *targetName)
	switch {
	case o.skipped != "":
		line = fmt.Sprintf("%s | %s | cannot apply: skips itself: %s", file, *targetName, o.skipped)
	case o.ran != o.plan:
		line = fmt.Sprintf("%s | %s | cannot apply: ends at %d of %d, failed %s", file, *targetName, o.ran, o.plan,
			numbers(o.failed))
	case len(o.failed) > 0:
		line = fmt.Sprintf("%s | %s | fails %s: ", file, *targetName, numbers(o.failed))
	}
	if *draft {
		fmt.Println(line)
		return
	}
	if list := o.differences(must); len(list) > 0 {
		t.Errorf("%s\nthe table would be: %s", strings.Join(list[:min(len(list), 20)], "\n"), line)
	}
}

// runFile runs a file of the suite against a server.
func runFile(t *testing.T, folder, file, address string) outcome {
	t.Helper()
	testenv.ReadsClock(t, fileTime, "a file of the suite that does not end has failed")
	ctx, cancel := context.WithTimeout(context.Background(), fileTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "perl", filepath.Join("t", file))
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "T_MEMD_USE_DAEMON="+address, "SSL_TEST=", "HARNESS_ACTIVE=")
	cmd.WaitDelay = time.Second
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	o := parseTAP(string(out))
	if err != nil && o.died == "" {
		lines := strings.Split(strings.TrimSpace(complaint.String()), "\n")
		o.died = fmt.Sprintf("%v: %s", err, strings.Join(lines[max(0, len(lines)-5):], " / "))
	}
	if o.ran == o.plan && len(o.failed) > 0 {
		o.died = "" // the status is the number of failed subtests
	}
	return o
}

// prepared copies the suite's t/ into a folder of the test, and puts our module in the place
// of the suite's.
func prepared(t *testing.T, source string) string {
	t.Helper()
	folder := t.TempDir()
	if err := os.CopyFS(filepath.Join(folder, "t"), os.DirFS(filepath.Join(source, "t"))); err != nil {
		t.Fatalf("memcached's suite: %v", err)
	}
	module, err := os.ReadFile("testdata/lib/MemcachedTest.pm")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "t/lib/MemcachedTest.pm"), module, 0o600); err != nil {
		t.Fatal(err)
	}
	return folder
}

// source returns the folder of memcached's source, from Debian unless -suite says it.
func source(t *testing.T) string {
	t.Helper()
	if *suiteFolder != "" {
		return *suiteFolder
	}
	for _, tool := range []string{"apt-get", "dpkg-source"} {
		if _, err := exec.LookPath(tool); err != nil {
			testenv.Needs(t, "there is no "+tool+": install the Debian package dpkg-dev, or name a folder with -suite")
		}
	}
	folder := t.TempDir()
	fetch := exec.Command("apt-get", "-qq", "-o", "Acquire::Retries=5", "source", "--download-only", "memcached")
	fetch.Dir = folder
	if out, err := fetch.CombinedOutput(); err != nil {
		testenv.Needs(t, fmt.Sprintf("apt-get has no source of memcached: enable deb-src in /etc/apt and run "+
			"apt-get update, or name a folder with -suite: %v\n%s", err, out))
	}
	packages, _ := filepath.Glob(filepath.Join(folder, "*.dsc"))
	if len(packages) != 1 {
		t.Fatalf("apt-get source has brought %q: want one .dsc", packages)
	}
	unpacked := filepath.Join(folder, "memcached")
	if out, err := exec.Command("dpkg-source", "--no-check", "-x", packages[0], unpacked).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-source: %v\n%s", err, out)
	}
	return unpacked
}
