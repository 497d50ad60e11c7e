package sidecar

import (
	"bufio"
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// askFresh sends n GETs of a key at once, and reads no answer.
func (c *rawConn) askFresh(key []byte, n uint64) {
	c.t.Helper()
	var batch []byte
	for i := range n {
		batch = wire.AppendRequest(batch, &wire.Request{ID: i, Op: wire.OpGet, Key: key, Options: wire.Fresh, TimeoutMS: 60_000})
	}
	if _, err := c.nc.Write(batch); err != nil {
		c.t.Fatal(err)
	}
}

// TestUnreadReadsOfAnotherHost checks an app that asks another host for a lot and reads
// nothing. The app has as many requests under way as there is room for their answers, and
// gets all answers once it reads.
func TestUnreadReadsOfAnotherHost(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	testenv.ReadsClock(t, 100*time.Millisecond, "no more requests come: they would have been sent by then")
	const n, size = 100, 500_000
	a, other, app, keys := startPair(t, 1)
	value := bytes.Repeat([]byte("x"), size)
	if _, err := other.Set(t.Context(), "default", string(keys[0]), value, cachesidecar.SetOptions{}); err != nil {
		t.Fatal(err)
	}
	asked := a.engine.Counts.PeerReads.Load()
	app.askFresh(keys[0], n)
	most := a.engine.Budget.Size() / 16 / size
	testenv.Eventually(t, "the first", func() bool { return a.engine.Counts.PeerReads.Load()-asked >= most/2 })
	time.Sleep(100 * time.Millisecond)
	if got := a.engine.Counts.PeerReads.Load() - asked; got > most+1 {
		t.Errorf("the owner was asked %d times while nothing is read, there is room for %d answers", got, most)
	}
	for range n {
		if r := app.receive(wire.OpGet); r.Status != wire.OK || len(r.Value) != size {
			t.Fatalf("%s %s, %d bytes", r.Status, r.Message, len(r.Value))
		}
	}
}

// dialAsHost returns a connection like another host's.
func dialAsHost(t *testing.T, s *Sidecar) *rawConn {
	t.Helper()
	return dialHandler(t, s, func() server.Handler { return s.sessions.Peer(kv.Process{Node: "other", Epoch: 1}) })
}

// dialHandler returns a connection to a server with a handler of a sidecar.
func dialHandler(t *testing.T, s *Sidecar, handler func() server.Handler) *rawConn {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	server := server.New(server.Limits{Budget: s.engine.Budget}, slog.New(slog.DiscardHandler), func(net.Conn) (server.Handler, error) {
		return handler(), nil
	})
	served := make(chan error, 1)
	go func() { served <- server.Serve(t.Context(), ln) }()
	nc, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close(); <-served }) // before the sidecar ends
	return &rawConn{t: t, nc: nc, r: bufio.NewReader(nc)}
}

// TestReadsOfTheGone checks that an app's requests are not sent to another host any more
// after the app's connection has ended.
func TestReadsOfTheGone(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 4*time.Second)
	const n, size = 200, 500_000
	a, other, app, keys := startPair(t, 1)
	if _, err := other.Set(t.Context(), "default", string(keys[0]), make([]byte, size), cachesidecar.SetOptions{}); err != nil {
		t.Fatal(err)
	}
	asked := a.engine.Counts.PeerReads.Load()
	app.askFresh(keys[0], n)
	testenv.Eventually(t, "the first", func() bool { return a.engine.Counts.PeerReads.Load() > asked })
	_ = app.nc.Close()
	testenv.Eventually(t, "all to end", func() bool { return a.engine.Waiting.Load() == 0 && a.engine.Budget.Stats().Total() == 0 })
	if got, most := a.engine.Counts.PeerReads.Load()-asked, a.engine.Budget.Size()/16/size; got > most+1 {
		t.Errorf("the owner was asked %d times, there is room for %d answers", got, most)
	}
}

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
		if err != nil {
			t.Fatal(err)
		}
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
			if err := n[i].UnmarshalText([]byte(row[i+1])); err != nil {
				t.Fatal(err)
			}
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
