package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestTerminateUnderLoad sends SIGTERM under load. Every executed request is answered,
// and the counts of the clients and of the sidecar agree.
func TestTerminateUnderLoad(t *testing.T) {
	t.Parallel()
	const clients, pipeline = 16, 200
	p := runSidecar(t)
	var answered, refused, sent atomic.Int64
	var broken sync.Map
	var g sync.WaitGroup
	for i := range clients {
		c := p.dial()
		batch := make([]byte, 0, 64<<10)
		for n := range pipeline {
			q := setRequest(fmt.Sprintf("key-%d-%d", i, n), strings.Repeat("v", 10*i*n%3000))
			q.ID, q.TimeoutMS = uint64(n), 60_000
			batch = wire.AppendRequest(batch, q)
		}
		g.Go(func() { // writes until the connection ends
			for {
				if _, err := c.nc.Write(batch); err != nil {
					return
				}
				sent.Add(pipeline)
			}
		})
		g.Go(func() { // reads until the connection ends
			for {
				r, err := c.read(wire.OpSet)
				switch {
				case err != nil:
					if errors.Is(err, os.ErrDeadlineExceeded) {
						broken.Store(i, err)
					}
					return
				case r.Status == wire.OK:
					answered.Add(1)
				default:
					refused.Add(1)
				}
			}
		})
	}
	testenv.Eventually(t, "load", func() bool { return answered.Load() >= 50_000 })
	p.terminate()
	g.Wait()
	broken.Range(func(i, err any) bool { t.Errorf("client %v: %v", i, err); return true })
	reads, writes := p.stopped()
	if writes != answered.Load() || reads != 0 || refused.Load() != 0 {
		t.Errorf("the sidecar counts %d writes and %d reads, the clients %d answers and %d refusals", writes, reads, answered.Load(), refused.Load())
	}
	t.Logf("%d requests were sent, %d executed, %d answered", sent.Load(), writes, answered.Load())
}

// stuck makes the sidecar wait for a client that does not read its answers.
func (p *process) stuck() {
	p.t.Helper()
	c, watcher := p.dial(), p.dial()
	c.must(setRequest("large", strings.Repeat("v", 4<<20)))
	var b []byte
	for range 100 {
		b = wire.AppendRequest(b, getRequest("large"))
	}
	c.write(b)
	// It is nonzero once large answers do not fit into the socket.
	testenv.Eventually(p.t, "a large answer to be held", func() bool { return watcher.stats().Connections.Buffers.Answers > 0 })
}

// TestLengthyTerminateWithClientThatNeverReads checks that a client that does not read cannot
// keep the sidecar from ending.
func TestLengthyTerminateWithClientThatNeverReads(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	testenv.ReadsClock(t, 4*time.Second, "requests have 5 s to end: the sidecar does not end sooner")
	t.Parallel()
	p := runSidecar(t)
	p.stuck()
	signalled := time.Now()
	p.signal(syscall.SIGTERM)
	p.ends(exitDone)
	if took := p.loggedAt("stopped").Sub(signalled); took < 4*time.Second {
		t.Errorf("it ended after %v, want 5 s", took)
	}
	// A write that makes no progress ends after 10 s, and is logged.
	if strings.Contains(p.log.String(), "the peer does not take its answers") {
		t.Error("it waited for the write")
	}
}

// TestSecondSignal checks that a second signal ends the process at once.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	p := runSidecar(t)
	p.stuck()
	p.signal(syscall.SIGTERM)
	testenv.Eventually(t, "the end", func() bool {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.exited:
			return true
		default:
			return false
		}
	})
	if p.status == exitDone {
		t.Error("it ended in order")
	}
}

// TestTerminateIdle checks that the shutdown does not wait for idle connections. It would
// wait 5 s for requests; the fastest of a few tries shows the difference on any machine.
func TestTerminateIdle(t *testing.T) {
	testenv.ReadsClock(t, 3*time.Second, "the fastest of four ends does not wait for idle connections; for requests it would wait 5 s")
	for _, s := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		fastest := time.Hour
		for try := 0; try < 4 && fastest > 3*time.Second; try++ {
			fastest = min(fastest, terminateIdle(t, s))
		}
		if fastest > 3*time.Second {
			t.Errorf("%v: took %v with idle connections", s, fastest)
		}
	}
}

func terminateIdle(t *testing.T, s os.Signal) time.Duration {
	t.Helper()
	p := runSidecar(t)
	c := p.dial()
	c.must(ping())
	start := time.Now()
	p.signal(s)
	p.ends(exitDone)
	took := time.Since(start)
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(p.socket), "*")); len(left) > 0 {
		t.Errorf("%v: left %q", s, left)
	}
	return took
}

// TestRestartOverStaleSocket checks that the socket file remains after kill -9, and that
// the next sidecar replaces it.
func TestRestartOverStaleSocket(t *testing.T) {
	t.Parallel()
	p := runSidecar(t)
	p.dial().must(setRequest("k", "v"))
	p.signal(os.Kill)
	p.wait()
	if _, err := os.Lstat(p.socket); err != nil {
		t.Fatalf("kill -9 removed the socket: %v", err)
	}
	if o := p.at("get", "k"); o.status != exitConnect {
		t.Errorf("a client of the dead sidecar: %v", o)
	}
	p = runSidecarAt(t, p.socket)
	if r := p.dial().call(getRequest("k")); r.Status != wire.Miss {
		t.Errorf("the new sidecar has the old key: %v", r.Status)
	}
	p.terminate()
}

func TestSecondSidecar(t *testing.T) {
	t.Parallel()
	p := runSidecar(t)
	check := p.bystander()
	o := runBinary(t, "run", "--socket", p.socket, "--http", "off")
	if o.status != exitMiss || o.out != "" || !strings.Contains(o.err, "already running") || !strings.Contains(o.err, p.socket) {
		t.Errorf("%v\nwant status %d and \"already running\"", o, exitMiss)
	}
	check()
	// The same holds if another program listens there.
	socket := filepath.Join(tempDir(t), "s")
	ln, err := net.Listen("unix", socket)
	testenv.Must(t, err)
	defer ln.Close()
	runBinary(t, "run", "--socket", socket, "--http", "off").fails(t, "beside another program's socket", exitMiss, "already running")
	// Of many that start at once, one wins.
	socket = filepath.Join(tempDir(t), "s")
	var all []*process
	for range 8 {
		all = append(all, launch(t, exec.Command(binary(), "run", "--socket", socket, "--http", "off", "--l2-size", "8MiB")))
	}
	testenv.Succeeds(t, "all but one to end", func() error {
		running := 0
		for _, p := range all {
			select {
			case <-p.exited:
				if !strings.Contains(p.log.String(), "already running") {
					t.Fatalf("status %d: %s", p.status, p.log)
				}
			default:
				running++
			}
		}
		if running != 1 {
			return fmt.Errorf("%d run", running)
		}
		return nil
	})
	if o := runBinary(t, "health", "--socket", socket); o.status != exitDone {
		t.Errorf("the winner: %v", o)
	}
}
