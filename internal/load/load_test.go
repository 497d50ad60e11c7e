package load

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// badKey is a key that is answered with an error.
const badKey = 1 << 40

// frames is a protocol of 8-byte frames that contain the key's number. A reply with an
// odd number is a hit.
type frames struct{}

func (frames) Greet(nc net.Conn) error {
	_, err := nc.Write([]byte("hello, s"))
	if err == nil {
		_, err = io.ReadFull(nc, make([]byte, 8))
	}
	return err
}

func (frames) Append(dst []byte, _ int, key uint64) []byte {
	return binary.BigEndian.AppendUint64(dst, key)
}

func (frames) Count(b []byte, want int) (replies, hits, size int, err error) {
	for replies < want && len(b)-size >= 8 {
		key := binary.BigEndian.Uint64(b[size:])
		if key == badKey {
			return replies, hits, size, errors.New("the server answers with an error")
		}
		hits += int(key % 2)
		replies++
		size += 8
	}
	return replies, hits, size, nil
}

// serve runs a server on a real socket that replies by calling answer with the bytes
// read. It returns a function that connects. The server ends with the test.
func serve(t *testing.T, answer func(w io.Writer, b []byte) error) func() (net.Conn, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	testenv.Must(t, err)
	var conns sync.WaitGroup
	conns.Add(1)
	go func() { // ends when the listener is closed
		defer conns.Done()
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Add(1)
			go func() { // ends when the client closes
				defer conns.Done()
				defer nc.Close()
				buf := make([]byte, 4096)
				for {
					n, err := nc.Read(buf)
					if err != nil || answer(nc, buf[:n]) != nil {
						return
					}
				}
			}()
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		conns.Wait()
	})
	return func() (net.Conn, error) { return net.Dial("unix", path) }
}

func echo(w io.Writer, b []byte) error {
	_, err := w.Write(b)
	return err
}

func TestRunCountsWhatAnEchoServerAnswers(t *testing.T) {
	for _, c := range []struct {
		name            string
		conns, pipeline int
	}{{"one by one", 1, 1}, {"many connections", 7, 1}, {"batches", 3, 50}} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Config{
				Dial: serve(t, echo), Protocol: frames{}, Conns: c.conns, Pipeline: c.pipeline,
				Duration: 30 * time.Millisecond, WarmUp: 5 * time.Millisecond,
				Key: func(_, n int) uint64 { return uint64(n) },
			}
			var r Result
			testenv.Eventually(t, "a request within the time of a run", func() bool {
				var err error
				if r, err = Run(t.Context(), cfg); err != nil {
					t.Fatal(err)
				}
				return r.Requests > 0
			})
			if r.Requests%int64(c.pipeline) != 0 || r.Elapsed != cfg.Duration {
				t.Errorf("got %d requests in %v, want some whole batches in %v", r.Requests, r.Elapsed, cfg.Duration)
			}
			if got, want := r.Latency.TotalCount(), r.Requests/int64(c.pipeline); got != want {
				t.Errorf("got %d latencies, want one a batch: %d", got, want)
			}
			// Every second key is odd. A connection may stop after an even one.
			if off := r.Requests - 2*r.Hits; off < -int64(c.conns) || off > int64(c.conns) {
				t.Errorf("got %d hits of %d requests, want every other", r.Hits, r.Requests)
			}
			if r.Latency.Max() > int64(time.Minute) || r.PerSecond() != float64(r.Requests)/0.03 {
				t.Errorf("got a longest batch of %v, %v/s", time.Duration(r.Latency.Max()), r.PerSecond())
			}
		})
	}
}

func TestOnceSendsEachKeyOnce(t *testing.T) {
	var mu sync.Mutex
	seen := map[uint64]int{}
	rest := map[io.Writer][]byte{}
	dial := serve(t, func(w io.Writer, b []byte) error {
		mu.Lock()
		all := append(rest[w], b...)
		for ; len(all) >= 8; all = all[8:] {
			seen[binary.BigEndian.Uint64(all)]++
		}
		rest[w] = append([]byte(nil), all...)
		mu.Unlock()
		return echo(w, b)
	})
	const conns, pipeline, batches = 4, 8, 16
	r, err := Run(t.Context(), Config{
		Dial: dial, Protocol: frames{}, Conns: conns, Pipeline: pipeline, Batches: batches, Once: true,
		Key: func(conn, n int) uint64 { return uint64(1000 + conn*pipeline*batches + n) },
	})
	testenv.Must(t, err)
	mu.Lock()
	defer mu.Unlock()
	delete(seen, binary.BigEndian.Uint64([]byte("hello, s")))
	if r.Requests != conns*pipeline*batches || len(seen) != conns*pipeline*batches {
		t.Errorf("got %d requests, %d keys at the server, want %d of both", r.Requests, len(seen), conns*pipeline*batches)
	}
	for key, n := range seen {
		if n != 1 {
			t.Errorf("key %d came %d times, want once", key, n)
		}
	}
}

// TestTurns checks that a load runs several times, and that each result is of its run alone.
func TestTurns(t *testing.T) {
	l, err := Open(Config{Dial: serve(t, echo), Protocol: frames{}, Conns: 2, Pipeline: 4, Key: func(_, n int) uint64 { return uint64(n) }})
	testenv.Must(t, err)
	defer l.Close()
	for range 3 {
		r, err := l.Run(t.Context(), 0, 5*time.Millisecond)
		testenv.Must(t, err)
		if r.Latency.TotalCount() != r.Requests/4 || r.Elapsed != 5*time.Millisecond {
			t.Errorf("got %d requests, %d latencies, %v; want 4 requests a latency, 5ms", r.Requests, r.Latency.TotalCount(), r.Elapsed)
		}
	}
}

func TestRepliesLongerThanTheBuffer(t *testing.T) {
	const size = 1 << 20
	dial := serve(t, func(w io.Writer, b []byte) error {
		if string(b) == "hello, s" {
			return echo(w, b)
		}
		_, err := w.Write(make([]byte, size))
		return err
	})
	r, err := Run(t.Context(), Config{Dial: dial, Protocol: long{size: size}, Conns: 1, Pipeline: 1, Batches: 3, Once: true, Key: func(int, int) uint64 { return 0 }})
	if err != nil || r.Requests != 3 {
		t.Errorf("got %d requests, error %v, want 3", r.Requests, err)
	}
}

type long struct {
	frames
	size int
}

func (p long) Count(b []byte, _ int) (replies, hits, size int, err error) {
	if len(b) < p.size {
		return 0, 0, 0, nil
	}
	return 1, 1, p.size, nil
}

func TestErrors(t *testing.T) {
	ok := Config{Protocol: frames{}, Conns: 2, Pipeline: 2, Duration: time.Minute, Key: func(_, n int) uint64 { return uint64(n % 300) }}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name   string
		ctx    context.Context
		answer func(w io.Writer, b []byte) error
		change func(*Config)
		want   string
	}{
		{"no connections", t.Context(), echo, func(c *Config) { c.Conns = 0 }, "0 connections × 2 requests: give at least 1"},
		{"no requests", t.Context(), echo, func(c *Config) { c.Pipeline = 0 }, "give at least 1"},
		{"the context ends", ended, echo, func(*Config) {}, "context canceled"},
		{"the server closes", t.Context(), func(w io.Writer, b []byte) error {
			if string(b) != "hello, s" {
				return io.EOF
			}
			return echo(w, b)
		}, func(*Config) {}, "closed the connection with 2 replies to come"},
		{"an error for an answer", t.Context(), echo, func(c *Config) { c.Key = func(int, int) uint64 { return badKey } }, "answers with an error"},
		{"too much of an answer", t.Context(), func(w io.Writer, b []byte) error {
			if string(b) != "hello, s" {
				b = append(b, "more"...)
			}
			return echo(w, b)
		}, func(*Config) {}, "4 bytes follow"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := ok
			cfg.Dial = serve(t, c.answer)
			c.change(&cfg)
			if _, err := Run(c.ctx, cfg); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
		})
	}
	cfg := ok
	cfg.Dial = func() (net.Conn, error) { return nil, errors.New("nobody listens") }
	if _, err := Run(t.Context(), cfg); err == nil || err.Error() != "nobody listens" {
		t.Errorf("got error %v, want the dialer's", err)
	}
}
