package rpc

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// told counts how often a caller is told the outcome of its call.
type told struct {
	times   atomic.Int64
	answers atomic.Int64
}

func (c *told) Answered(_ *transport.Answers, frame []byte, err error) {
	c.times.Add(1)
	if err == nil && len(frame) > 0 {
		c.answers.Add(1)
	}
}

// FuzzAnswers feeds a calling connection any bytes in any pieces. Each caller must be
// told the outcome of its call once, and the connection must end.
func FuzzAnswers(f *testing.F) {
	const calls = 3
	answer := func(id uint64) []byte { return wire.AppendReply(nil, wire.OpPing, &wire.Reply{ID: id}) }
	first, second := uint64(1)<<32|1, uint64(1)<<32|2
	f.Add(append(answer(first), answer(second)...), uint8(3))
	f.Add(append(answer(first), answer(first)...), uint8(100)) // twice
	f.Add(append(answer(0), answer(1<<32-1)...), uint8(1))     // to no call
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x92, 1, 0}, uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, piece uint8) {
		near, far := net.Pipe()
		c := newClient(near, ClientConfig{MaxFrame: 1 << 17})
		go func() { _, _ = io.Copy(io.Discard, far) }() // ends with the pipe
		var callers [calls]told
		for i := range callers {
			testenv.Must(t, c.Start(&wire.Request{Op: wire.OpPing}, time.Minute, &callers[i]))
		}
		c.Flush()
		for step := int(piece) + 1; len(b) > 0; b = b[min(step, len(b)):] {
			if _, err := far.Write(b[:min(step, len(b))]); err != nil {
				break
			}
		}
		far.Close()
		<-c.Done()
		if err := c.Close(); err != nil || c.Err() == nil {
			t.Errorf("%v, after %v", err, c.Err())
		}
		for i := range callers {
			if n := callers[i].times.Load(); n != 1 {
				t.Errorf("caller %d was told %d times, with %d answers", i, n, callers[i].answers.Load())
			}
		}
	})
}
