package client_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// lateOnceAwaited is late once the call waits for it: not before the call has begun,
// however slow the machine is.
type lateOnceAwaited struct {
	late
	awaited sync.Once
}

func (l *lateOnceAwaited) Done() <-chan struct{} {
	l.awaited.Do(func() { close(l.over) })
	return l.over
}

// TestLateWhileOthersConnect checks the error of a call whose time is over while another
// call connects: it was surely not executed.
func TestLateWhileOthersConnect(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	c := dial(t, client.Config{Socket: path, DialTimeout: time.Minute, Lazy: true, Conns: 1})
	ln, err := net.Listen("unix", path)
	testenv.Must(t, err)
	defer ln.Close()
	accepted, first := make(chan struct{}), make(chan error, 1)
	go func() { // ends when nc is closed, or with the test
		for {
			_, err := c.Set(context.Background(), "k", nil, cachesidecar.SetOptions{})
			select {
			case <-accepted:
				first <- err
				return
			case <-t.Context().Done():
				return
			default: // the pause after the failed attempt of Dial
				runtime.Gosched()
			}
		}
	}()
	_ = ln.(*net.UnixListener).SetDeadline(testenv.Deadline())
	nc, err := ln.Accept() // and says nothing
	testenv.Must(t, err)
	close(accepted)
	if _, err := c.Set(&lateOnceAwaited{late: late{t.Context(), make(chan struct{})}}, "k", nil, cachesidecar.SetOptions{}); !errors.Is(err, cachesidecar.ErrUnavailable) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
	_ = ln.Close() // the first does not try again
	_ = nc.Close()
	if err := <-first; !errors.Is(err, cachesidecar.ErrUnavailable) {
		t.Errorf("the first: %v, want ErrUnavailable", err)
	}
}

// TestHelloNotReadable checks the error of a HELLO whose answer cannot be read.
func TestHelloNotReadable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	testenv.Must(t, err)
	defer ln.Close()
	go func() { // ends with the client's connection
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		var head [wire.LengthSize]byte
		_, _ = io.ReadFull(nc, head[:])
		frame := make([]byte, binary.BigEndian.Uint32(head[:]))
		_, _ = io.ReadFull(nc, frame)
		var q wire.Request
		_ = wire.DecodeRequest(frame, &q)
		_, _ = nc.Write(wire.AppendReply(nil, q.Op, &wire.Reply{ID: q.ID, Body: []byte{1}}))
		_, _ = io.Copy(io.Discard, nc)
	}()
	if _, err := client.Dial(t.Context(), client.Config{Socket: path, DialTimeout: time.Minute}); !errors.Is(err, cachesidecar.ErrInternal) {
		t.Errorf("%v, want ErrInternal", err)
	}
}

// TestDeadlineWithCause checks that a passed deadline is ErrTimeout, also if the context
// has a cause of its own.
func TestDeadlineWithCause(t *testing.T) {
	testenv.Takes(t, time.Second)
	s := newScripted(t, client.Config{Conns: 1})
	s.answers(testenv.Context(t), wire.OpPing, wire.Reply{})
	cause := errors.New("the page is late")
	for range 200 {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Millisecond, cause)
		_, err := s.Set(ctx, "k", nil, cachesidecar.SetOptions{}) // gets no answer
		cancel()
		if !errors.Is(err, cachesidecar.ErrTimeout) {
			t.Fatalf("%v, want ErrTimeout", err)
		}
		testenv.Eventually(t, "no doubt", func() bool { return !s.Doubted() })
	}
}

// TestNegativeConfig checks that Dial refuses a negative setting, and names it.
func TestNegativeConfig(t *testing.T) {
	for name, cfg := range map[string]client.Config{
		"Conns": {Conns: -1}, "MaxLoads": {MaxLoads: -1}, "RequestTimeout": {RequestTimeout: -time.Second},
	} {
		cfg.Socket, cfg.Lazy = filepath.Join(t.TempDir(), "none"), true
		if _, err := client.Dial(t.Context(), cfg); !errors.Is(err, cachesidecar.ErrBadRequest) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
