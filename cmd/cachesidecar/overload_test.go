package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestLengthyOverload sends a sidecar far more than it can serve: small requests, large values,
// misses of a slow origin, connections. Each request is answered or refused, and no
// answer is wrong; requests are served in each part of the time. Memory, goroutines and
// descriptors stay bounded, and are what they were before when it is over.
func TestLengthyOverload(t *testing.T) {
	testenv.Takes(t, 10*time.Second)
	needFiles(t, 8192)
	const places = 4
	var calls atomic.Int64
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer calls.Add(-1)
		if n := calls.Add(1); n > places {
			t.Errorf("%d calls of the origin at once, want at most %d", n, places)
		}
		time.Sleep(5 * time.Millisecond) // what a call takes
		_, _ = io.WriteString(w, "value of "+r.URL.Path[1:])
	}))
	t.Cleanup(origin.Close)
	config := filepath.Join(tempDir(t), "config.yaml")
	text := fmt.Sprintf("namespaces: {loaded: {origin: {http: {url: '%s/{key}'}}, limits: {concurrency: %d}}}", origin.URL, places)
	testenv.Must(t, os.WriteFile(config, []byte(text), 0o600))
	page := testenv.FreeAddress(t)
	p := runSidecar(t, "--http", page, "--config", config, "--l1-size", "16MiB", "--l2-size", "64MiB")
	watcher := p.dial()
	before := watcher.stats()
	memory := p.bounded(16<<20 + 64<<20 + 128<<20)
	for _, o := range []struct {
		name    string
		refuses bool // some must be refused
		conns   int
		each    int // requests of a connection
		window  int // of them, that are sent before the answers are read
		request func(conn, i int) *wire.Request
		right   func(conn, i int, r *wire.Reply) bool
	}{
		{"requests", false, 16, 20_000, 20_000, smallRequest, smallAnswer},
		{"large values", false, 16, 60, 60, largeRequest, largeAnswer},
		{"loads", true, 16, 3000, 20, loadRequest, loadAnswer},
	} {
		t.Run(o.name, func(t *testing.T) {
			c := &crowded{request: o.request, right: o.right}
			check := p.bystander()
			var wg sync.WaitGroup
			for i := range o.conns {
				wg.Go(func() {
					if err := c.flood(p, i, o.each, o.window); err != nil {
						t.Errorf("connection %d: %v", i, err)
					}
				})
			}
			wg.Wait()
			check()
			t.Logf("%d served, %d refused", c.served.Load(), c.refused.Load())
			if wrong := c.example.Load(); wrong != nil {
				t.Errorf("%d answers are wrong: %s", c.wrong.Load(), *wrong)
			}
			if c.served.Load() < int64(o.conns) || o.refuses && c.refused.Load() == 0 {
				t.Errorf("%d served, %d refused", c.served.Load(), c.refused.Load())
			}
			for part := range c.parts {
				if c.parts[part].Load() == 0 {
					t.Errorf("none of part %d of the answers is a value", part)
				}
			}
		})
	}
	t.Run("connections", func(t *testing.T) { floodConnections(t, p) })
	t.Logf("at most %d MiB were resident", memory()>>20)
	testenv.Succeeds(t, "goroutines and descriptors to be as before", func() error {
		st := watcher.stats()
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
		if err != nil && !os.IsNotExist(err) {
			return err
		}
		const few = 100 // idle connections to the origin, and their goroutines
		if g := st.Process.Goroutines - before.Process.Goroutines; g > few || len(files) > few || st.Connections.Waiting > 0 {
			return fmt.Errorf("%d goroutines more than before, %d descriptors, %d connections wait", g, len(files), st.Connections.Waiting)
		}
		return nil
	})
}

// parts is how many parts of the answers must have values.
const parts = 10

// crowded is connections that send requests as fast as they can.
type crowded struct {
	request                func(conn, i int) *wire.Request
	right                  func(conn, i int, r *wire.Reply) bool
	served, refused, wrong atomic.Int64
	parts                  [parts]atomic.Int64    // served, by the part of each connection's answers
	example                atomic.Pointer[string] // a wrong answer; nil: none
}

// flood sends n requests over one connection.
func (c *crowded) flood(p *process, number, n, window int) error {
	conn, err := p.tryDial()
	if err != nil {
		return err
	}
	defer conn.close()
	seen := make([]bool, n)
	for from := 0; from < n; from += window {
		sent := make(chan error, 1)
		go func() { sent <- c.send(conn, number, from, from+window) }() // ends when all is written, or with the connection
		if err := c.take(conn, number, seen, from, window); err != nil {
			return err
		}
		if err := <-sent; err != nil {
			return err
		}
	}
	return nil
}

// send sends some of a connection's requests.
func (c *crowded) send(conn *conn, number, from, to int) error {
	var b []byte
	for i := from; i < to; i++ {
		q := c.request(number, i)
		// A request is refused with BUSY before its time is over, also on a slow machine.
		q.ID, q.TimeoutMS = uint64(i+10), 20_000
		if b = wire.AppendRequest(b, q); len(b) > 32<<10 || i == to-1 {
			if _, err := conn.nc.Write(b); err != nil {
				return err
			}
			b = b[:0]
		}
	}
	return nil
}

// take reads the answers to some of a connection's requests.
func (c *crowded) take(conn *conn, number int, seen []bool, before, some int) error {
	n := len(seen)
	for answers := before; answers < before+some; answers++ {
		b, err := readFrame(conn.r)
		if err != nil {
			return fmt.Errorf("after %d answers: %w", answers, err)
		}
		id, ok := wire.PeekID(b)
		i := int(id) - 10
		if !ok || i < 0 || i >= n || seen[i] {
			return fmt.Errorf("an answer with id %d, which is none or was answered", id)
		}
		seen[i] = true
		var r wire.Reply
		if err := wire.DecodeReply(c.request(number, i).Op, b, &r); err != nil {
			return err
		}
		switch {
		case r.Status == wire.Busy:
			c.refused.Add(1)
		case c.right(number, i, &r):
			c.served.Add(1)
			c.parts[answers*parts/n].Add(1)
		default:
			c.wrong.Add(1)
			text := fmt.Sprintf("%s %.40q %s %v", r.Status, r.Value, r.Message, r.Why)
			c.example.CompareAndSwap(nil, &text)
		}
	}
	return nil
}

// Each connection has keys of its own: an even request SETs, and the next one GETs, which
// is answered with what was set or, if that SET was refused, an older value.

func smallRequest(conn, i int) *wire.Request {
	key := fmt.Sprintf("small-%d-%d", conn, i/2%100)
	if i%2 == 0 {
		return setRequest(key, key)
	}
	return getRequest(key)
}

func smallAnswer(conn, i int, r *wire.Reply) bool {
	return i%2 == 0 && r.Status == wire.OK || r.Status == wire.OK && string(r.Value) == fmt.Sprintf("small-%d-%d", conn, i/2%100)
}

const largeSize = 1 << 20

func largeRequest(conn, i int) *wire.Request {
	key := fmt.Sprintf("large-%d", conn)
	if i%2 == 0 {
		return &wire.Request{Op: wire.OpSet, Key: []byte(key), Value: bytes.Repeat([]byte{byte('a' + conn)}, largeSize), TTLMS: wire.TTLDefault}
	}
	return getRequest(key)
}

func largeAnswer(conn, i int, r *wire.Reply) bool {
	if i%2 == 0 || r.Status == wire.Miss { // the SET before was refused, or the value was evicted
		return r.Status == wire.OK || i%2 == 1
	}
	return r.Status == wire.OK && len(r.Value) == largeSize && bytes.Count(r.Value, []byte{byte('a' + conn)}) == largeSize
}

func loadRequest(conn, i int) *wire.Request {
	q := getRequest(fmt.Sprintf("load-%d-%d", conn, i))
	q.Namespace = []byte("loaded")
	return q
}

func loadAnswer(conn, i int, r *wire.Reply) bool {
	return r.Status == wire.OK && string(r.Value) == fmt.Sprintf("value of load-%d-%d", conn, i)
}

// floodConnections opens connections as fast as it can; each has a quarter of a second.
func floodConnections(t *testing.T, p *process) {
	const goroutines, each = 300, 20
	check := p.bystander()
	var served, late atomic.Int64
	var last [4]atomic.Int64 // served, by the quarter of each goroutine's connections
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for i := range each {
				switch err := oneRequest(p); {
				case err == nil:
					served.Add(1)
					last[i*len(last)/each].Add(1)
				case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, io.EOF), isReset(err):
					late.Add(1)
				default:
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	check()
	t.Logf("%d connections served, %d given up", served.Load(), late.Load())
	for i := range last {
		if last[i].Load() == 0 {
			t.Errorf("no connection is served in quarter %d", i)
		}
	}
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op)
}

// oneRequest makes a connection for one request.
func oneRequest(p *process) error {
	c, err := p.tryConnect()
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.nc.SetDeadline(time.Now().Add(250 * time.Millisecond)); err != nil {
		return err
	}
	if _, err := c.try(helloRequest()); err != nil {
		return err
	}
	r, err := c.try(ping())
	if err == nil && r.Status != wire.OK {
		err = fmt.Errorf("PING is answered %v", r.Status)
	}
	return err
}

// bounded watches the process's memory. most ends the watch, fails the test if the
// process grew beyond the configured sizes plus 256 MiB, which an attack may cost, and
// returns the peak. Far beyond that, the process is killed at once.
func (p *process) bounded(sizes int64) (most func() int64) {
	p.t.Helper()
	var mu sync.Mutex
	var peak int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // ends with stop
		defer close(done)
		for {
			if n := resident(p.cmd.Process.Pid); n > 0 {
				mu.Lock()
				peak = max(peak, n)
				mu.Unlock()
				if n > sizes+1<<30 { // far beyond: other programs need the machine too
					_ = p.cmd.Process.Kill()
				}
			}
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return func() int64 {
		close(stop)
		<-done
		if peak > sizes+256<<20 {
			p.t.Errorf("the process grew to %d MiB, want at most %d", peak>>20, sizes>>20+256)
		}
		return peak
	}
}

// resident returns a process's memory in bytes, or zero if it is not known.
func resident(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	var size, pages int64
	if _, e := fmt.Sscan(string(b), &size, &pages); err != nil || e != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
