package sidecar

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// setClock is a clock that a test sets.
type setClock struct{ now kv.Moment }

func (c *setClock) Read() kv.Moment { return c.now }

func (c *setClock) advance(d time.Duration) {
	c.now.Wall += d.Milliseconds()
	c.now.Boot += d
}

// keptEngine returns an engine that takes over memory, and a function that ends it and returns its memory.
func keptEngine(t *testing.T, clock kv.Clock, f *os.File, cfg Config) (e *engine.Engine, end func() *os.File) {
	t.Helper()
	cfg.NoSocket, cfg.clock, cfg.L2Size = true, clock, 8<<20
	cfg.Namespaces = map[string]Namespace{"fed": {}}
	s, err := New(cfg)
	testenv.Must(t, err)
	own := s.engineConfig(s.engine.Access)
	own.Keep = &engine.Keep{File: f, Why: "none", Boot: "boot", Fed: []string{"fed"}}
	if e, err = engine.New(own); err != nil {
		t.Fatal(err)
	}
	return e, func() *os.File {
		fd, _ := unix.FcntlInt(e.Store.Memory().Fd(), unix.F_DUPFD_CLOEXEC, 0)
		testenv.Must(t, e.Close())
		return os.NewFile(uintptr(fd), "kept")
	}
}

// TestKeptSinceServed checks that the time without a process counts from the last one that has served,
// that the namespaces of feeds begin empty, and that a lower max_value takes nothing over.
func TestKeptSinceServed(t *testing.T) {
	clock := &setClock{kv.Moment{Wall: 1_700_000_000_000, Boot: time.Hour}}
	there := func(e *engine.Engine, ns string) bool {
		_, found := e.Store.Peek(e.Namespaces.Lookup([]byte(ns)).Key([]byte("k")), clock.now.Boot)
		return found
	}
	e, end := keptEngine(t, clock, nil, Config{})
	for _, ns := range []string{"default", "fed"} {
		if _, r := e.Store.Put(e.Namespaces.Lookup([]byte(ns)).Key([]byte("k")), segment.Write{Value: []byte("v")}, clock.now); r != segment.Stored {
			t.Fatal(r)
		}
	}
	e.Serving()
	f := end()
	clock.advance(30 * time.Second)
	e, end = keptEngine(t, clock, f, Config{})
	if k := e.Kept(); k.Entries != 2 || k.DownMS != 30_000 || k.Cold != "" || !there(e, "default") || there(e, "fed") {
		t.Errorf("%+v, default %v, fed %v", k, there(e, "default"), there(e, "fed"))
	}
	f = end() // it has not served
	clock.advance(20 * time.Second)
	e, end = keptEngine(t, clock, f, Config{})
	if k := e.Kept(); k.DownMS != 50_000 || !there(e, "default") {
		t.Errorf("%+v", k)
	}
	f = end()
	clock.advance(11 * time.Second)
	e, end = keptEngine(t, clock, f, Config{})
	if k := e.Kept(); !strings.Contains(k.Cold, "no process ran for 1m1s") || there(e, "default") {
		t.Errorf("%+v", k)
	}
	e.Serving()
	f = end()
	e, end = keptEngine(t, clock, f, Config{MaxValue: 1000})
	if k := e.Kept(); !strings.Contains(k.Cold, "max_value was 524288 B, and is 1000 B") {
		t.Errorf("%+v", k)
	}
	_ = end().Close()
}
