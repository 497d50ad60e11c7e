package rpc

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// peer is the other side of connections. It answers a GET by its key:
//
//	wait    when release is closed
//	big N   with a value of N bytes
//	drop    by ending the connection
//
// and any other with the key.
type peer struct {
	release chan struct{}
	served  atomic.Int64
}

func newPeer() *peer { return &peer{release: make(chan struct{})} }

// listen accepts connections at a Unix socket until the test ends, and returns a function that makes
// one.
func (p *peer) listen(t testing.TB) (dial func() net.Conn) {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	testenv.Must(t, err)
	var all sync.WaitGroup
	over := make(chan struct{})
	all.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() { p.serve(nc, over) }) // ends with the connection
		}
	})
	t.Cleanup(func() { _ = ln.Close(); close(over); all.Wait() }) // once its connections have been closed
	return func() net.Conn {
		nc, err := net.Dial("unix", ln.Addr().String())
		testenv.Must(t, err)
		t.Cleanup(func() { _ = nc.Close() })
		return nc
	}
}

// serve answers the requests of a connection until no more come. What waits is answered before the
// connection is closed, unless the test is over.
func (p *peer) serve(nc net.Conn, over <-chan struct{}) {
	defer nc.Close()
	var waiting sync.WaitGroup
	defer waiting.Wait()
	for {
		frame, err := tryReadFrame(nc)
		if err != nil {
			return
		}
		var q wire.Request
		if err := wire.DecodeRequest(frame, &q); err != nil {
			return
		}
		p.served.Add(1)
		key, r, n := string(q.Key), wire.Reply{ID: q.ID, Value: q.Key}, 0
		switch {
		case key == "drop":
			return
		case key == "wait":
			waiting.Go(func() { // ends with the test at the latest
				select {
				case <-p.release:
					_, _ = nc.Write(wire.AppendReply(nil, q.Op, &r))
				case <-over:
				}
			})
			continue
		case strings.HasPrefix(key, "big "):
			_, _ = fmt.Sscan(key[4:], &n)
			r.Value = make([]byte, n)
		}
		if _, err := nc.Write(wire.AppendReply(nil, q.Op, &r)); err != nil {
			return
		}
	}
}

// onceServed calls do once n requests have been served.
func (p *peer) onceServed(t *testing.T, n int64, do func()) {
	testenv.Eventually(t, "the requests", func() bool { return p.served.Load() >= n })
	do()
}

// socketPair returns the two ends of a connection.
func socketPair(t *testing.T) (conns [2]net.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	testenv.Must(t, err)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		if conns[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	t.Cleanup(func() { _ = conns[1].Close() })
	return conns
}

func getRequest(key string) *wire.Request { return &wire.Request{Op: wire.OpGet, Key: []byte(key)} }

func newTestClient(t testing.TB, dial func() net.Conn, cfg ClientConfig) *Client {
	c := newClient(dial(), cfg)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// tryReadFrame reads a frame and returns it without its length.
func tryReadFrame(r io.Reader) ([]byte, error) {
	var head [wire.LengthSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	frame := make([]byte, wire.FrameLength(head[:]))
	_, err := io.ReadFull(r, frame)
	return frame, err
}
