package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/calls"
	"github.com/cachesidecar/cachesidecar/internal/shm"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// welcome drops the shared memory of another process, and attaches that of this one, when a sidecar has
// said HELLO. The connection is not used before.
func (s *shared) welcome(path, token string, w *wire.Welcome) {
	s.memory.setEpoch(w.Epoch)
	ask := func() { // it fails once the client is closed
		_ = s.begin(context.Background(), func(ctx context.Context) { attach(ctx, s, path, token, w) })
	}
	s.memory.ask.Store(&ask)
	ask()
}

// attach maps the region that a sidecar offers. The descriptor comes over a connection of
// its own. Without a region all reads go over the socket.
func attach(ctx context.Context, s *shared, path, token string, w *wire.Welcome) {
	m := &s.memory
	if s.cfg.NoSharedMemory || !shm.Supported || !slices.Contains(w.Features, "shared") || !m.attaching.TryLock() {
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
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })()
	uc, ok := nc.(*net.UnixConn)
	if !ok {
		return nil, 0, errors.New("no Unix socket")
	}
	in := &descriptorReader{uc: uc}
	defer in.close()
	before := s.clock.Read().Boot
	out := wire.AppendRequest(nil, &wire.Request{ID: 1, Op: wire.OpHello, Hello: wire.Hello{
		Versions: wire.Versions, Client: s.cfg.Name, Token: token, Namespace: s.cfg.Namespace,
	}})
	if _, err := uc.Write(wire.AppendRequest(out, &wire.Request{ID: 2, Op: wire.OpShared})); err != nil {
		return nil, 0, err
	}
	var w wire.Welcome
	var b wire.Shared
	if err := errors.Join(in.answer(wire.OpHello, &w), in.answer(wire.OpShared, &b)); err != nil {
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

// descriptorReader reads answers, and the descriptor that comes with one of them.
type descriptorReader struct {
	uc   *net.UnixConn
	buf  []byte
	file *os.File
}

// maxAnswer is the longest answer that is taken, in bytes.
const maxAnswer = 64 << 10

// answer reads the next answer and decodes its body.
func (p *descriptorReader) answer(op wire.Op, body any) error {
	for len(p.buf) < wire.LengthSize || len(p.buf) < wire.LengthSize+wire.FrameLength(p.buf) {
		if len(p.buf) >= wire.LengthSize && wire.FrameLength(p.buf) > maxAnswer {
			return fmt.Errorf("an answer of %d bytes", wire.FrameLength(p.buf))
		}
		if err := p.read(); err != nil {
			return err
		}
	}
	end := wire.LengthSize + wire.FrameLength(p.buf)
	frame := p.buf[wire.LengthSize:end]
	p.buf = p.buf[end:]
	var r wire.Reply
	if err := wire.DecodeReply(op, frame, &r); err != nil {
		return err
	}
	if err := calls.Err(&r); err != nil {
		return err
	}
	return wire.UnmarshalBody(r.Body, body)
}

func (p *descriptorReader) read() error {
	var b [4096]byte
	oob := make([]byte, syscall.CmsgSpace(4*8))
	n, oobn, _, _, err := p.uc.ReadMsgUnix(b[:], oob)
	if err != nil {
		return err
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return err
	}
	for i := range messages {
		fds, err := syscall.ParseUnixRights(&messages[i])
		for _, fd := range fds {
			syscall.CloseOnExec(fd)
			p.close()
			p.file = os.NewFile(uintptr(fd), "shared memory")
		}
		if err != nil {
			return err
		}
	}
	if n == 0 {
		return io.ErrUnexpectedEOF
	}
	p.buf = append(p.buf, b[:n]...)
	return nil
}

func (p *descriptorReader) close() {
	if p.file != nil {
		_ = p.file.Close()
	}
}
