package transport

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/peertest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// secured returns a connection whose other side does not read by itself, and writes through under.
func secured(t *testing.T, under func(net.Conn) net.Conn) (s *Socket, other *tls.Conn) {
	t.Helper()
	a := peertest.NewAuthority(t, "one")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	testenv.Must(t, err)
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	testenv.Must(t, err)
	server, err := ln.Accept()
	testenv.Must(t, err)
	other = tls.Client(under(client), &tls.Config{InsecureSkipVerify: true})
	nc := Secure(server, func(below net.Conn) *tls.Conn {
		return tls.Server(below, &tls.Config{Certificates: []tls.Certificate{a.Certificate(t, []string{"b"})}, SessionTicketsDisabled: true})
	})
	done := make(chan error, 1)
	go func() { done <- other.Handshake() }()
	testenv.Must(t, errors.Join(nc.Handshake(), <-done))
	t.Cleanup(func() { _ = nc.Close(); _ = other.Close() })
	s = &Socket{}
	s.Init(nc, 100*time.Millisecond, func() error { return nil })
	return s, other
}

// TestSecuredNow checks a write that does not wait: it takes the bytes for which there is
// room, and keeps a bounded rest. The next write that may wait sends the rest in order.
func TestSecuredNow(t *testing.T) {
	s, other := secured(t, func(nc net.Conn) net.Conn { return nc })
	b := bytes.Repeat([]byte("0123456789abcdef"), 2<<20) // 32 MiB
	n, behind, err := s.WriteNow(b)
	if err != nil || n == 0 || n == len(b) || !behind {
		t.Fatalf("%d of %d are taken, behind %v: %v", n, len(b), behind, err)
	}
	if rest := len(s.line.rest); rest > maxRecord+100 {
		t.Errorf("%d bytes wait", rest)
	}
	if again, _, err := s.WriteNow(b); again != 0 || err != nil {
		t.Errorf("%d more are taken: %v", again, err)
	}
	// The system may still take some of it.
	for err = s.Write(nil); err == nil && n < len(b); err = s.Write(nil) {
		more, _, e := s.WriteNow(b[n:])
		if n += more; e != nil {
			t.Fatal(e)
		}
	}
	if !IsTimeout(err) {
		t.Errorf("a peer that takes nothing: %v", err)
	}
	got := make(chan error, 1)
	go func() { // ends when it has read all
		read := make([]byte, len(b))
		for at := 0; at < len(b); {
			n, err := other.Read(read[at:])
			if err != nil {
				got <- err
				return
			}
			at += n
		}
		if !bytes.Equal(read, b) {
			got <- errors.New("the bytes differ")
		}
		close(got)
	}()
	s.fd.timeout = time.Minute
	if err := s.Write(b[n:]); err != nil || s.line.behind() {
		t.Errorf("behind %v: %v", s.line.behind(), err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// drip writes a byte each time that the reader rests, once that is asked of it.
type drip struct {
	net.Conn
	rests chan struct{} // nil: it writes at once
}

func (d *drip) Write(b []byte) (n int, err error) {
	if d.rests == nil {
		return d.Conn.Write(b)
	}
	for n < len(b) && err == nil {
		<-d.rests
		_, err = d.Conn.Write(b[n : n+1])
		n++
	}
	return n, err
}

// TestSecuredDrips checks that a reader rests, without a buffer, in the middle of a TLS record.
func TestSecuredDrips(t *testing.T) {
	d := &drip{}
	s, other := secured(t, func(nc net.Conn) net.Conn { d.Conn = nc; return d })
	var in Input
	in.Init(s, nil, quota.ForFrames, func() error { return nil })
	d.rests = make(chan struct{}, 1<<10)
	in.readFn = func(fd uintptr) bool {
		done := in.tryRead(fd)
		if !done {
			if in.buf != nil {
				t.Error("it rests with a buffer")
			}
			d.rests <- struct{}{}
		}
		return done
	}
	wrote := make(chan error, 1)
	go func() { _, err := other.Write([]byte("one record")); wrote <- err }() // ends with the reader
	err := in.ReadEach(func(int) error { return io.ErrNoProgress })
	if got := string(in.Bytes()); got != "one record" || err != io.ErrNoProgress {
		t.Errorf("%q: %v", got, err)
	}
	close(d.rests) // it writes the rest at once, and TLS's goodbye
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}
