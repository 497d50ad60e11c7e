package client_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// scripted is a sidecar whose answers a test gives, in any order. It has no values: it
// answers GET with get, which is a miss by default.
type scripted struct {
	*client.Client
	t        *testing.T
	asked    chan *asked // all requests except HELLO and GET
	get      wire.Reply
	gets     *atomic.Int64
	boot     func() wire.BootClock // the boot clock that HELLO offers
	features []string
	full     *atomic.Bool  // new connections are closed
	shed     *atomic.Int64 // number of connections closed so
	leave    chan *asked   // the LEAVINGs, which wait
}

// asked is a request that waits for its answer.
type asked struct {
	wire.Request
	conn   net.Conn
	answer func(wire.Reply)
	hangUp func()
	ended  chan struct{} // closed when the connection has ended
}

func newScripted(t *testing.T, cfg client.Config, features ...string) *scripted {
	t.Helper()
	return newScriptedAt(t, cfg, func() wire.BootClock { return wire.BootClock{} }, features...)
}

// newScriptedAt is newScripted with a boot clock.
func newScriptedAt(t *testing.T, cfg client.Config, boot func() wire.BootClock, features ...string) *scripted {
	t.Helper()
	s := &scripted{
		boot: boot, features: features, t: t, asked: make(chan *asked, 100), get: wire.Reply{Status: wire.Miss}, gets: new(atomic.Int64),
		full: new(atomic.Bool), shed: new(atomic.Int64), leave: make(chan *asked, 1000),
	}
	cfg.Socket = filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", cfg.Socket)
	testenv.Must(t, err)
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { ln.Close() })
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			if s.full.Load() {
				s.shed.Add(1) // before the client can know
				nc.Close()
				continue
			}
			wg.Go(func() { s.serve(nc) }) // until the client closes it
		}
	})
	s.Client = dial(t, cfg)
	return s
}

func (s *scripted) serve(nc net.Conn) {
	defer nc.Close()
	ended := make(chan struct{})
	defer close(ended)
	var mu sync.Mutex
	for {
		var head [wire.LengthSize]byte
		if _, err := io.ReadFull(nc, head[:]); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(head[:]))
		if _, err := io.ReadFull(nc, frame); err != nil {
			return
		}
		a := &asked{conn: nc, hangUp: func() { nc.Close() }, ended: ended}
		if err := wire.DecodeRequest(frame, &a.Request); err != nil {
			s.t.Errorf("%x: %v", frame, err)
			return
		}
		a.answer = func(r wire.Reply) {
			mu.Lock()
			defer mu.Unlock()
			r.ID = a.ID
			_, _ = nc.Write(wire.AppendReply(nil, a.Op, &r)) // fails after the client's close
		}
		switch a.Op {
		case wire.OpHello:
			body := wire.MarshalBody(wire.Welcome{
				Version: wire.Version, Node: "scripted", Features: s.features,
				Limits: wire.Limits{Value: 1 << 20}, Boot: s.boot(),
			})
			a.answer(wire.Reply{Body: body})
		case wire.OpLeaving:
			s.leave <- a
		case wire.OpGet:
			a.answer(s.get)
			s.gets.Add(1)
		default:
			s.asked <- a
		}
	}
}

// in returns a view of the same sidecar with another namespace.
func (s *scripted) in(namespace string) *scripted {
	v := *s
	v.Client = s.InNamespace(namespace)
	return &v
}

// wants returns the next request, which must have the given op.
func (s *scripted) wants(op wire.Op) *asked {
	s.t.Helper()
	select {
	case a := <-s.asked:
		if a.Op != op {
			s.t.Fatalf("the client sends %s, want %s", a.Op, op)
		}
		return a
	case <-testenv.Expired():
		s.t.Fatalf("the client sends no %s", op)
	}
	return nil
}

// answers gives the requests with an op the same answer until ctx ends, and takes all others.
func (s *scripted) answers(ctx context.Context, op wire.Op, r wire.Reply) {
	go func() {
		for {
			select {
			case a := <-s.asked:
				if a.Op == op {
					a.answer(r)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
}

var (
	granted = wire.Reply{Status: wire.Lease, Token: []byte("token"), TTLMS: 5000}
	filled  = wire.Reply{Version: 7}
)

func value(v string) wire.Reply {
	return wire.Reply{Value: []byte(v), Version: 5, Source: wire.SourceL2}
}

func refused(s wire.Status) wire.Reply { return wire.Reply{Status: s, Message: []byte("scripted")} }

// TestFeature checks that a call is sent only to a sidecar that serves it, if not every one does.
func TestFeature(t *testing.T) {
	q := wire.Request{Op: wire.OpShared}
	s := newScripted(t, client.Config{})
	if err := s.Call(t.Context(), &q); !errors.Is(err, cachesidecar.ErrUnsupported) || len(s.asked) > 0 {
		t.Errorf("a sidecar without shared memory: %v, %d requests", err, len(s.asked))
	}
	s = newScripted(t, client.Config{NoSharedMemory: true}, "shared")
	go func() { s.wants(wire.OpShared).answer(refused(wire.Busy)) }()
	if err := s.Call(t.Context(), &q); !errors.Is(err, cachesidecar.ErrBusy) {
		t.Errorf("a sidecar with shared memory: %v", err)
	}
}

// TestAnswersToOtherKeys checks that an answer with too few or too many keys is
// ErrInternal.
func TestAnswersToOtherKeys(t *testing.T) {
	s := newScripted(t, client.Config{})
	for _, items := range [][]wire.Reply{nil, {{Version: 1}}, {{Version: 1}, {Version: 2}, {Version: 3}}} {
		failed := make(chan error, 2)
		go func() {
			_, err := s.DeleteMulti(context.Background(), []string{"a", "b"}, cachesidecar.DeleteOptions{})
			failed <- err
			_, err = s.GetMulti(context.Background(), []string{"a", "b"}, cachesidecar.GetOptions{})
			failed <- err
		}()
		for _, op := range []wire.Op{wire.OpDelete, wire.OpMGet} {
			s.wants(op).answer(wire.Reply{Items: items})
			if err := <-failed; !errors.Is(err, cachesidecar.ErrInternal) {
				t.Errorf("%s of two keys, answered with %d: %v", op, len(items), err)
			}
		}
	}
}
