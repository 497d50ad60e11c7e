package sidecar

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestMemoryLimits checks that the limit for Go's runtime, the check at the start and the number of
// connections come from what a sidecar needs.
func TestMemoryLimits(t *testing.T) {
	s := &Sidecar{} // not started: a running sidecar reads its configuration
	s.present = Config{L1Size: 16 << 20, L2Size: 16 << 20, BufferSize: 64 << 20, MaxConnections: 2000}
	sizes := memorySizes{l1: 16 << 20, l2: 16 << 20, buffers: 64 << 20, connections: 2000}
	if n, want := s.HeapLimit(), sizes.need().heap; n != want {
		t.Errorf("Go's limit is %s, want %s", Size(n), Size(want))
	}
	if n, err := s.present.Memory(); n <= Size(sizes.need().total()) || err != nil { // shared_size has a default
		t.Errorf("%s are needed, %v", n, err)
	}
	s.present.Namespaces = map[string]Namespace{"a": {ExistingKeys: &ExistingKeys{Keys: 10_000_000}}}
	// For each of two copies one byte a key, and a little more.
	if n := s.HeapLimit() - sizes.need().heap; n < 2*10_000_000 {
		t.Errorf("a filter of 10 million keys adds %s", Size(n))
	}
	s.present.Namespaces, s.present.Memcached = nil, "127.0.0.1:1"
	if !s.present.sizes().tcp {
		t.Error("connections over TCP count as others")
	}
	s.present.Memcached = "/a/socket"
	if s.present.sizes().tcp {
		t.Error("a socket counts as TCP")
	}
	have, _ := memoryLimit()
	if have == 0 {
		t.Skip("the system does not tell how much memory there is")
	}
	room := func(connections int) { // leaves room for so many
		sizes := sizes
		sizes.l2, sizes.connections = 0, connections
		s.present.L2Size = Size(have - sizes.need().total())
	}
	room(1500)
	if n, err := s.present.connections(), checkMemory(s.present); n != 1500 || err != nil {
		t.Errorf("room for 1,500 connections: %d, %v", n, err)
	}
	room(999)
	err := checkMemory(s.present)
	if err == nil || !strings.Contains(err.Error(), "and 1000 connections need ") || !strings.Contains(err.Error(), "lower the sizes") {
		t.Errorf("room for 999 connections: %v", err)
	}
	s.present.IgnoreMemoryLimit = true
	if n, err := s.present.connections(), checkMemory(s.present); n != 2000 || err != nil {
		t.Errorf("if the limit is to be ignored: %d connections, %v", n, err)
	}
	if part := (memorySizes{buffers: quota.SocketsPart << 20}).need().kernel - (memorySizes{}).need().kernel; part != 1<<20 {
		t.Errorf("of the budget %d MiB are counted for sockets, which may have 1", part>>20)
	}
}

// TestMemoryPages checks what the pages and the unit of systemd state against what is computed.
func TestMemoryPages(t *testing.T) {
	read := func(path string) string {
		b, err := os.ReadFile(path)
		testenv.Must(t, err)
		return string(b)
	}
	page := read("../docs/OPERATIONS.md")
	if !strings.Contains(page, "\n    "+memoryFormula+"\n") {
		t.Errorf("OPERATIONS.md lacks the line %s", memoryFormula)
	}
	rows := regexp.MustCompile(`(?m)^\| \d+ GiB \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|`).FindAllStringSubmatch(page, -1)
	for _, row := range rows {
		var n [4]Size
		for i := range n {
			testenv.Must(t, n[i].UnmarshalText([]byte(row[i+1])))
		}
		c := Config{L2Size: n[0], L1Size: n[1], BufferSize: n[2], MaxConnections: 1000}
		if need, err := c.Memory(); err != nil || need > n[3] || n[3] > need+need/25 {
			t.Errorf("%s: %s are needed, %v", row[0], need, err)
		}
	}
	if len(rows) != 3 {
		t.Errorf("%d rows of the table of machines", len(rows))
	}
	need, err := Config{}.Memory()
	unit := read("../deploy/systemd/cachesidecar.service")
	if line := fmt.Sprintf("\n#MemoryMax=%dM\n", need>>20); err != nil || !strings.Contains(unit, line) {
		t.Errorf("the unit lacks%s, %v", line, err)
	}
}
