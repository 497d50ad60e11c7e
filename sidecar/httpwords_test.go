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

	"github.com/cachesidecar/cachesidecar/internal/httpd"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestHTTPWords checks that HEAD is answered like GET. A client without the token learns
// whether the host is ready, but not why. No browser may guess another content type.
func TestHTTPWords(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	testenv.Must(t, os.WriteFile(file, []byte("sesame-sesame-sesame\n"), 0o600))
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
		testenv.Must(t, err)
		_, _ = io.WriteString(c, tc.method+" "+tc.path+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"+tc.header+"\r\n")
		r, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: tc.method})
		testenv.Must(t, err)
		b, _ := io.ReadAll(r.Body)
		_ = c.Close()
		if r.StatusCode != tc.status || strings.Contains(string(b), why) != tc.tells ||
			r.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s %s with %q: %d %q, %v", tc.method, tc.path, tc.header, r.StatusCode, b, r.Header)
		}
	}
	s.socket.gone.Store(nil)
}

// TestHTTPPage checks that the status page and its events need the token, which a browser
// sends as a password, and that the page shows this host. A path that does not exist is
// not the page.
func TestHTTPPage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	testenv.Must(t, os.WriteFile(file, []byte("sesame-sesame-sesame\n"), 0o600))
	s := start(t, Config{Node: "page-node", HTTP: "127.0.0.1:0", HTTPTokenFile: file})
	url := "http://" + s.http.Load().Addr().String()
	for _, tc := range []struct {
		method, path, user, password, bearer string
		status                               int
		body                                 string
	}{
		{"GET", "/", "", "", "", 401, "as the password of any user"},
		{"GET", "/events", "", "", "", 401, "as the password of any user"},
		{"GET", "/", "anyone", "sesame", "", 401, "token"},
		{"GET", "/", "sesame-sesame-sesame", "", "", 401, "token"},
		{"GET", "/", "anyone", "sesame-sesame-sesame", "", 200, "<h1><bdi>page-node</bdi></h1>"},
		{"GET", "/", "", "sesame-sesame-sesame", "", 200, "This host is alone."},
		{"GET", "/", "", "", "sesame-sesame-sesame", 200, "page-node"},
		{"HEAD", "/events", "", "", "sesame-sesame-sesame", 200, ""},
		{"POST", "/", "", "", "sesame-sesame-sesame", 405, "GET and HEAD alone"},
		{"GET", "/x", "", "", "sesame-sesame-sesame", 404, "not found"},
	} {
		r, err := http.NewRequest(tc.method, url+tc.path, nil)
		testenv.Must(t, err)
		switch {
		case tc.bearer != "":
			r.Header.Set("Authorization", "Bearer "+tc.bearer)
		case tc.user+tc.password != "":
			r.SetBasicAuth(tc.user, tc.password)
		}
		resp, err := http.DefaultClient.Do(r)
		testenv.Must(t, err)
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != tc.status || !strings.Contains(string(b), tc.body) {
			t.Errorf("%+v: %d %s", tc, resp.StatusCode, b)
		}
		if ask := resp.Header.Values("WWW-Authenticate"); tc.status == 401 && len(ask) != 2 {
			t.Errorf("%+v: it asks for %q", tc, ask)
		}
	}
	follow, err := http.NewRequest("GET", url+"/events", nil)
	testenv.Must(t, err)
	follow.Header.Set("Authorization", "Bearer sesame-sesame-sesame")
	stream, err := http.DefaultClient.Do(follow)
	testenv.Must(t, err)
	defer stream.Body.Close()
	lines := bufio.NewReader(stream.Body)
	if line, err := lines.ReadString('\n'); err != nil || line != "data: <header>\n" {
		t.Fatalf("%q %v", line, err)
	}
	ended := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, lines); close(ended) }() // ends with the stream
	s.http.Load().SetCallers(httpd.Callers{Token: "another-token-of-length"})
	select {
	case <-ended:
	case <-testenv.Expired():
		t.Error("a stream goes on after its token was taken out")
	}
	http.DefaultClient.CloseIdleConnections()
}
