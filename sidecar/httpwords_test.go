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
)

// TestHTTPWords checks that HEAD is answered like GET. A client without the token learns
// whether the host is ready, but not why. No browser may guess another content type.
func TestHTTPWords(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("sesame-sesame-sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, Config{HTTP: "127.0.0.1:0", HTTPTokenFile: file})
	why := "the path is taken"
	s.socket.gone.Store(&why)
	address := s.http.Load().Addr().String()
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
