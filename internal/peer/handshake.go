package peer

import (
	"errors"
	"io"
	"net"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// handshakeConn is the connection that a server's handshake reads through. It limits how much
// the handshake reads, and lets other handshakes compute while this one waits.
type handshakeConn struct {
	net.Conn
	head  []byte        // read before the handshake
	left  int           // bytes that the handshake may still read
	slots chan struct{} // nil once the handshake is over
}

var (
	errLong  = errors.New("the handshake is too long")
	errPlain = errors.New("it does not speak TLS: give all hosts the same cluster_key_file, and restart them")
)

// tlsHandshake is the first byte of a TLS connection. As the first byte of a frame's
// length it would mean 352 MiB or more, and no frame is so long.
const tlsHandshake = 0x16

// beginHandshake reads the first bytes of the connection. A sidecar that does not speak TLS gets
// an answer that says what to do; of its frame only the id is read.
func (g *handshakeConn) beginHandshake(nc net.Conn) error {
	first := make([]byte, 1)
	if _, err := io.ReadFull(nc, first); err != nil {
		return err
	}
	if first[0] == tlsHandshake {
		g.head = first
		return nil
	}
	rest := make([]byte, 512)
	n, err := io.ReadAtLeast(nc, rest, wire.LengthSize+16)
	if err != nil {
		return errPlain
	}
	if id, ok := wire.PeekID(rest[wire.LengthSize-1 : n]); ok {
		answer := wire.AppendError(nil, id, wire.Errorf(wire.Unauthorized,
			"this host has a cluster key, or certificates, and speaks TLS alone: "+
				"give all hosts the same cluster_key_file, and restart them"))
		_ = nc.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = nc.Write(answer) // the connection is closed in any case
	}
	return errPlain
}

// lingerFor is how long a refused connection has to read the reason.
const lingerFor = 250 * time.Millisecond

// closeForWriting gives the other side time to read what was sent to it. A connection that is
// closed with unread bytes may lose what was sent.
func closeForWriting(nc net.Conn) {
	cw, ok := nc.(interface{ CloseWrite() error })
	if !ok || cw.CloseWrite() != nil {
		return
	}
	_ = nc.SetReadDeadline(time.Now().Add(lingerFor))
	_, _ = io.Copy(io.Discard, io.LimitReader(nc, MaxGreeting))
}

// endHandshake marks the handshake as over.
func (g *handshakeConn) endHandshake() { g.slots = nil }

// Read implements net.Conn.
func (g *handshakeConn) Read(b []byte) (int, error) {
	if g.slots == nil {
		return g.Conn.Read(b)
	}
	if len(g.head) > 0 {
		n := copy(b, g.head)
		g.head = g.head[n:]
		return n, nil
	}
	if g.left <= 0 {
		return 0, errLong
	}
	<-g.slots
	n, err := g.Conn.Read(b[:min(len(b), g.left)])
	g.slots <- struct{}{}
	g.left -= n
	return n, err
}
