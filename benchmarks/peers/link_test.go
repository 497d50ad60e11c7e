package peers

import (
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestLink checks that a link forwards bytes, keeps them without ending the connection
// while it hangs, and ends the connection when it is closed.
func TestLink(t *testing.T) {
	testenv.ReadsClock(t, 50*time.Millisecond, "no byte may come over a link that hangs")
	dir := t.TempDir()
	front, back := filepath.Join(dir, "front"), filepath.Join(dir, "back")
	ln, err := net.Listen("unix", back)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	l := NewLink()
	defer l.Close()
	if err := l.Stream("unix", front, back); err != nil {
		t.Fatal(err)
	}
	near, err := net.Dial("unix", front)
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	for _, c := range []struct{ from, to net.Conn }{{near, far}, {far, near}} {
		buf := make([]byte, 2)
		if _, err := c.from.Write([]byte("hi")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c.to, buf); err != nil || string(buf) != "hi" {
			t.Fatalf("got %q, error %v", buf, err)
		}
	}
	l.Hang()
	if _, err := near.Write([]byte("hi")); err != nil {
		t.Errorf("a link that hangs tells of it: %v", err)
	}
	_ = far.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := far.Read(make([]byte, 2)); n != 0 || err == nil || err == io.EOF {
		t.Errorf("got %d bytes over a link that hangs, error %v", n, err)
	}
	l.Close()
	_ = near.SetReadDeadline(testenv.Deadline())
	if _, err := near.Read(make([]byte, 1)); err == nil {
		t.Error("the connection outlives its link")
	}
	if err := l.Stream("unix", filepath.Join(dir, "late"), back); err == nil {
		t.Error("a closed link takes another end")
	}
}

func TestPlaceBehindALink(t *testing.T) {
	c, err := places(2, time.Second, Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := c.linked()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, h := range c.Hosts() {
		p := h.o.Place
		if p.Advertise == "" || p.address() == p.Bind || p.Join[0] != c.Hosts()[0].o.Place.address() {
			t.Errorf("%s is at %s, bound to %s, and joins %v", h.Node(), p.address(), p.Bind, p.Join)
		}
		if f := p.flags(); f[len(f)-1] != p.Advertise {
			t.Errorf("got flags %q without the address %s", f, p.Advertise)
		}
	}
}
