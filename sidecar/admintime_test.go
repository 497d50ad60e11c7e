package sidecar

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener of connections in memory, whose time is virtual.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if nc, ok := <-p; ok {
		return nc, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// A connection to the HTTP port ends in its time: where its header does not come, where
// its answer is not read, and where it is at rest.
func TestHTTPTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Config{NoSocket: true, L2Size: 8 << 20, HTTP: "127.0.0.1:0"})
		if err != nil {
			t.Fatal(err)
		}
		a, err := s.newAdmin()
		if err != nil {
			t.Fatal(err)
		}
		defer a.gate.Close()
		conns := make(pipes)
		done := make(chan error, 1)
		go func() { done <- a.srv.Serve(conns) }()
		for _, tc := range []struct {
			name, request string
			reads         bool
			after         time.Duration
		}{
			{"half a header", "GET /livez HT", true, 5 * time.Second},
			{"nothing", "", true, 5 * time.Second},
			{"an answer that is not read", "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", false, 10 * time.Second},
			{"at rest", "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", true, 30 * time.Second},
		} {
			near, far := net.Pipe()
			conns <- far
			began := time.Now()
			go func() { _, _ = io.WriteString(near, tc.request) }()
			if !tc.reads {
				time.Sleep(tc.after + time.Second)
			}
			_ = near.SetReadDeadline(time.Now().Add(5 * time.Minute))
			b, err := io.ReadAll(near)
			took := time.Since(began)
			if late := took - tc.after; err != nil && !strings.Contains(err.Error(), "closed") || late < -time.Millisecond || late > 2*time.Second {
				t.Errorf("%s: it ends after %v, want %v: %d bytes, %v", tc.name, took, tc.after, len(b), err)
			}
			_ = near.Close()
		}
		close(conns)
		<-done
		_ = a.srv.Close()
	})
}

// HEAD is answered as GET is. Who has no token is told in a word whether the host is
// ready, and not why; no answer is taken by a browser for what it is not.
func TestHTTPWords(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("sesame-sesame-sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, Config{HTTP: "127.0.0.1:0", HTTPTokenFile: file})
	why := "the path is taken"
	s.socket.gone.Store(&why)
	address := s.gate.Load().Addr().String()
	for _, tc := range []struct {
		method, path, header string
		status               int
		tells                bool
	}{
		{"GET", "/readyz", "", 503, false},
		{"GET", "/readyz", "Authorization: Bearer sesame-sesame-sesame\r\n", 503, true},
		{"HEAD", "/livez", "", 200, false},
	} {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, tc.method+" "+tc.path+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"+tc.header+"\r\n")
		r, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: tc.method})
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(r.Body)
		_ = c.Close()
		if r.StatusCode != tc.status || strings.Contains(string(b), why) != tc.tells ||
			r.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s %s with %q: %d %q, %v", tc.method, tc.path, tc.header, r.StatusCode, b, r.Header)
		}
	}
	s.socket.gone.Store(nil)
}
