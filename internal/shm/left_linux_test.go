package shm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// Files that others have put there cost one look each, up to a bound. Only those of this user
// that are named like regions count.
func TestPlanted(t *testing.T) {
	testenv.Takes(t, time.Second)
	const name, another = namePrefix + "0123456789abcdef-", namePrefix + "fedcba9876543210-"
	dir := t.TempDir()
	plant := func(name string, owner int) {
		t.Helper()
		path := filepath.Join(dir, name)
		testenv.Must(t, os.WriteFile(path, nil, 0o600))
		if os.Geteuid() == 0 { // else all are this user's
			testenv.Must(t, os.Chown(path, owner, owner))
		}
	}
	self := os.Geteuid()
	for i := range 100 {
		plant(fmt.Sprintf("%sp%d", name, i), 12345)
		plant(fmt.Sprintf("%sp%d", name, i+100), self)
		if self == 0 {
			plant(fmt.Sprintf("%s%016x", name, i+1000), 12345)
		}
	}
	for i := range 3 {
		plant(fmt.Sprintf("%s%016x", name, i), self)
	}
	for i := range maxStale + 5 {
		plant(fmt.Sprintf("%s%016x", another, i), self)
	}
	mine, others, err := left(dir, name, maxLooked)
	if err != nil || len(mine) != 3 || len(others) != maxStale {
		t.Errorf("%d of this socket, %d of others, %v", len(mine), len(others), err)
	}
	for _, path := range mine {
		if !strings.HasPrefix(filepath.Base(path), name+"000000000000000") {
			t.Error(path)
		}
	}
	if _, _, err := left(dir, name, 50); err == nil || !strings.Contains(err.Error(), "more than 50 files") {
		t.Errorf("beyond the bound: %v", err)
	}
}

// The next sidecar erases what a killed one has left: apps may have it mapped.
func TestEndOthersErases(t *testing.T) {
	g := newRig(t, MinSize)
	g.publish("secret key", "secret value")
	g.Abandon()
	if n, err := EndOthers(sockets[g.file]); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	nothingOf(t, g.r.mem, "secret")
}

// A region is used as long as a process has it open or mapped.
func TestUsed(t *testing.T) {
	f := newFile(t, MinSize)
	if f.Used() {
		t.Error("a region that no app has is used")
	}
	file, err := f.Open()
	testenv.Must(t, err)
	if !f.Used() {
		t.Error("a region that is open is not used")
	}
	m, err := unix.Mmap(int(file.Fd()), 0, MinSize, unix.PROT_READ, unix.MAP_SHARED)
	testenv.Must(t, errors.Join(err, file.Close()))
	if !f.Used() {
		t.Error("a region that is mapped is not used")
	}
	testenv.Must(t, unix.Munmap(m))
	if f.Used() {
		t.Error("a region that no app has any more is used")
	}
}
