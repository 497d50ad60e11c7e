package surge

import (
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// serve runs a server whose answers to requests but HELLO have the status that answer
// gives; zero is no answer. It ends with the test.
func serve(t *testing.T, answer func(n int) wire.Status) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	asked := 0
	next := func() wire.Status {
		mu.Lock()
		defer mu.Unlock()
		asked++
		return answer(asked)
	}
	one := func(nc net.Conn) {
		defer nc.Close()
		for {
			var head [wire.LengthSize]byte
			if _, err := io.ReadFull(nc, head[:]); err != nil {
				return
			}
			frame := make([]byte, wire.FrameLength(head[:]))
			if _, err := io.ReadFull(nc, frame); err != nil {
				return
			}
			var q wire.Request
			if err := wire.DecodeRequest(frame, &q); err != nil {
				t.Error(err)
				return
			}
			r := wire.Reply{ID: q.ID, Value: []byte("value")}
			if q.Op != wire.OpHello {
				if r.Status = next(); r.Status == closes {
					return
				}
			}
			var out []byte
			switch {
			case q.Op == wire.OpHello:
				out = wire.AppendReply(nil, q.Op, &wire.Reply{ID: q.ID, Body: []byte{0x80}})
			case r.Status == silent:
				continue
			case r.Status.IsError():
				out = wire.AppendError(nil, q.ID, wire.Errorf(r.Status, "no"))
			default:
				out = wire.AppendReply(nil, q.Op, &r)
			}
			if _, err := nc.Write(out); err != nil {
				return
			}
		}
	}
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { one(nc) })
		}
	})
	t.Cleanup(func() { _ = ln.Close(); wg.Wait() })
	return socket
}

// Instead of an answer.
const (
	silent wire.Status = 250
	closes wire.Status = 251
)

func config(socket string, conns int) Config {
	return Config{
		Socket: socket, Requests: Mix(100, 10, 50, 16, []byte("value")), Rate: 2000, Duration: 200 * time.Millisecond,
		Timeout: 100 * time.Millisecond, Conns: conns, Seed: 1,
	}
}

// TestOutcomes checks what becomes of requests whose answers are useful, BUSY, wrong,
// missing, or the end of the connection.
func TestOutcomes(t *testing.T) {
	for _, c := range []struct {
		name   string
		conns  int
		answer func(n int) wire.Status
		right  func(r *Result) bool
	}{
		{"all served", 4, func(int) wire.Status { return wire.OK },
			func(r *Result) bool { return r.Served > 0 && r.Busy+r.Failed == 0 }},
		{"half refused", 4, func(n int) wire.Status { return []wire.Status{wire.OK, wire.Busy}[n%2] },
			func(r *Result) bool {
				return r.Busy > 0 && r.Served > 0 && r.Failed == 0 && r.Refuse.TotalCount() == r.Busy
			}},
		{"misses", 4, func(int) wire.Status { return wire.Miss },
			func(r *Result) bool {
				return r.Failed > 0 && r.Served == 0 && strings.Contains(r.Failure, wire.Miss.String())
			}},
		{"held back by the window", 4, func(int) wire.Status { return silent },
			func(r *Result) bool { return r.Held > 0 && r.Served+r.Busy == 0 }},
		{"connections", 0, func(int) wire.Status { return wire.OK },
			func(r *Result) bool { return r.Served > 0 && r.Busy+r.Failed == 0 }},
		{"connections that are closed", 0, func(int) wire.Status { return closes },
			func(r *Result) bool { return r.Busy > 0 && r.Served == 0 }},
		{"connections that wait", 0, func(int) wire.Status { return silent },
			func(r *Result) bool { return r.Late > 0 && r.Served+r.Busy == 0 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config(serve(t, c.answer), c.conns)
			cfg.Window, cfg.Duration = 8, time.Second
			r, err := Run(cfg)
			if err != nil || r.Due == 0 || !c.right(r) || r.Serve.TotalCount() != r.Served {
				t.Errorf("got %+v, error %v", r, err)
			}
		})
	}
}

// TestLongRequests checks that requests that the kernel takes in parts arrive whole, and
// that long answers are counted once.
func TestLongRequests(t *testing.T) {
	cfg := config(serve(t, func(int) wire.Status { return wire.OK }), 2)
	cfg.Requests = Mix(4, 2, 2, 16, make([]byte, 1<<20))
	cfg.Rate, cfg.Window, cfg.Timeout, cfg.Duration = 100, 1, 10*time.Second, 500*time.Millisecond
	r, err := Run(cfg)
	if err != nil || r.Served == 0 || r.Failed > 0 {
		t.Errorf("got %+v, error %v", r, err)
	}
}

// TestEnded checks the error if a connection that is to stay open is ended.
func TestEnded(t *testing.T) {
	_, err := Run(config(serve(t, func(int) wire.Status { return closes }), 1))
	if err == nil || !strings.Contains(err.Error(), "has ended a connection") {
		t.Errorf("got error %v", err)
	}
}

// TestPin checks that a pinned process may use one processor.
func TestPin(t *testing.T) {
	all, err := Processors()
	if err != nil {
		t.Fatal(err)
	}
	defer Pin(all...)
	if err := Pin(all[0]); err != nil {
		t.Fatal(err)
	}
	if one, err := Processors(); err != nil || len(one) != 1 || one[0] != all[0] {
		t.Errorf("pinned to %d: got %v, error %v", all[0], one, err)
	}
}
