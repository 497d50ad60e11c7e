package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/shm"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// welcome drops the shared memory of another process, and attaches that of this one, when a sidecar has
// said HELLO. The connection is not used before.
func (s *shared) welcome(path, token string, w *wire.Welcome) {
	s.memory.setEpoch(w.Epoch)
	ask := func() { // it fails once the client is closed
		_ = s.beginTask(context.Background(), func(ctx context.Context) { attach(ctx, s, path, token, w) })
	}
	s.memory.ask.Store(&ask)
	ask()
}

// attach maps the region that a sidecar offers. The descriptor comes over a connection of
// its own. Without a region all reads go over the socket.
func attach(ctx context.Context, s *shared, path, token string, w *wire.Welcome) {
	m := &s.memory
	if s.cfg.NoSharedMemory || !shm.Supported || !w.Serves(wire.OpShared) || !m.attaching.TryLock() {
		return
	}
	defer m.attaching.Unlock()
	if r := m.reader.Load(); r != nil && !r.Closed() {
		return
	}
	// Close waits for this: the sidecar would find a broken connection.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.DialTimeout)
	defer cancel()
	for {
		generation := m.generation()
		r, epoch, err := region(ctx, s, path, token)
		if err != nil || m.keep(r, epoch, generation) {
			return
		}
	}
}

// region asks for the region and maps it. It returns the epoch of the sidecar's process too.
func region(ctx context.Context, s *shared, path, token string) (r *shm.Reader, epoch uint64, err error) {
	nc, err := unixsock.Dial(ctx, path)
	if err != nil {
		return nil, 0, err
	}
	in := &descriptorConn{Conn: nc}
	c := rpc.NewClient(in, rpc.ClientConfig{MaxFrame: maxAnswer})
	defer func() { _ = c.Close(); in.drop() }()
	before := s.clock.Read().Boot
	var w wire.Welcome
	var b wire.Shared
	if err := askBody(ctx, c, s.cfg.DialTimeout, hello(s, token), &w); err != nil {
		return nil, 0, err
	}
	if err := askBody(ctx, c, s.cfg.DialTimeout, &wire.Request{Op: wire.OpShared}, &b); err != nil {
		return nil, 0, err
	}
	clock := wire.BootClock{ID: w.Boot.ID, NowNS: b.NowNS}
	if !sameClock(clock, before, s.clock.Read().Boot) {
		return nil, 0, errors.New("the sidecar's boot clock is another one")
	}
	if in.file == nil || b.Layout != shm.Layout {
		return nil, 0, fmt.Errorf("a region of layout %d, with a descriptor: %v", b.Layout, in.file != nil)
	}
	r, err = shm.Map(in.file)
	if err == nil && !r.Is(w.Epoch, b.ID, b.Counter) {
		return nil, 0, errors.New("the descriptor is another region's")
	}
	return r, w.Epoch, err
}

// maxAnswer is the longest answer that is taken, in bytes.
const maxAnswer = 64 << 10

// descriptorConn is a connection to a Unix socket that keeps the last descriptor which comes with the
// bytes.
type descriptorConn struct {
	net.Conn
	file *os.File
}

func (d *descriptorConn) Read(b []byte) (int, error) {
	uc, ok := d.Conn.(*net.UnixConn)
	if !ok {
		return 0, errors.New("no Unix socket")
	}
	oob := make([]byte, syscall.CmsgSpace(4*8))
	n, oobn, _, _, err := uc.ReadMsgUnix(b, oob)
	if err != nil {
		return 0, err
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return 0, err
	}
	for i := range messages {
		fds, err := syscall.ParseUnixRights(&messages[i])
		for _, fd := range fds {
			syscall.CloseOnExec(fd)
			d.drop()
			d.file = os.NewFile(uintptr(fd), "shared memory")
		}
		if err != nil {
			return 0, err
		}
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (d *descriptorConn) drop() {
	if d.file != nil {
		_ = d.file.Close()
	}
}
