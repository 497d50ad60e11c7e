package httporigin

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// store is a server that keeps the bodies that it receives, by path.
type store struct {
	mu     sync.Mutex
	values map[string]string
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	_, found := s.values[r.URL.Path]
	switch {
	case err != nil:
	case r.Method == http.MethodDelete && !found:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodDelete:
		delete(s.values, r.URL.Path)
		w.WriteHeader(http.StatusNoContent)
	default:
		s.values[r.URL.Path] = fmt.Sprintf("%s %s %s: %s", r.Method, r.Header.Get("Content-Type"), r.Header.Get("X-Token"), body)
		w.WriteHeader(http.StatusCreated)
	}
}

func (s *store) value(path string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.values[path]
}

func TestWrite(t *testing.T) {
	testenv.Takes(t, 3*time.Second)
	t.Parallel()
	kept := &store{values: map[string]string{}}
	release := make(chan struct{})
	mux := http.NewServeMux()
	mux.Handle("/values/", kept)
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		var code int
		fmt.Sscan(r.PathValue("code"), &code)
		w.Header().Set("Location", "/values/moved")
		w.WriteHeader(code)
	})
	mux.HandleFunc("/late/", func(w http.ResponseWriter, r *http.Request) {
		<-release
		kept.ServeHTTP(w, r)
	})
	mux.HandleFunc("/talk/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, strings.Repeat("x", 1<<20)) })
	server := httptest.NewServer(mux)
	defer server.Close()
	defer close(release)

	writer := func(url string, timeout time.Duration, cfg WriteConfig) loader.Writer {
		of := Config{URL: url, Headers: map[string]string{"X-Token": "s3cret"}, Write: cfg}
		return source(t, of, loader.OriginOptions{Timeout: timeout})
	}
	values := writer(server.URL+"/values/{key}", 0, WriteConfig{})
	status := writer(server.URL+"/status/{key}", 0, WriteConfig{})
	proxy := origintest.NewProxy(t, "tcp", server.Listener.Addr().String())
	proxied := writer("http://"+proxy.Address+"/values/{key}?token=s3cret", 0, WriteConfig{})
	hasty := func(address, path string) loader.Writer {
		return writer("http://"+address+path+"{key}?token=s3cret", origintest.Hasty, WriteConfig{})
	}
	big := strings.Repeat("x", 1<<20)
	origintest.RunWrites(t, []origintest.Write{
		{Name: "store", Writer: values, Key: "a/b", Value: "1"},
		{Name: "store again", Writer: values, Key: "a/b", Value: "2"},
		{Name: "empty", Writer: values, Key: "empty"},
		{Name: "big", Writer: values, Key: "big", Value: big},
		{Name: "store and delete", Writer: values, Key: "gone", Value: "1"},
		{Name: "delete", Writer: values, Key: "gone", Delete: true},
		{Name: "delete what is not there", Writer: values, Key: "gone", Delete: true},
		{Name: "other methods", Writer: writer(server.URL+"/values/{key}", 0, WriteConfig{StoreMethod: "POST", ContentType: "text/plain"}), Key: "post", Value: "1"},
		{Name: "accepted", Writer: status, Key: "202"},
		{Name: "a long answer", Writer: writer(server.URL+"/talk/{key}", 0, WriteConfig{}), Key: "a"},
		{Name: "bad key", Writer: values, Key: "..", Err: loader.ErrBadKey},
		{Name: "refused", Writer: status, Key: "403", Err: loader.ErrNotWritten},
		{Name: "conflict", Writer: status, Key: "409", Err: loader.ErrNotWritten},
		{Name: "nothing there to store", Writer: status, Key: "404", Err: loader.ErrNotWritten},
		{Name: "nothing there to delete", Writer: status, Key: "410", Delete: true},
		{Name: "timed out there", Writer: status, Key: "408", Err: origintest.ErrUnknown},
		{Name: "error", Writer: status, Key: "500", Err: origintest.ErrUnknown},
		{Name: "redirect", Writer: status, Key: "307", Err: origintest.ErrUnknown},
		{Name: "hangs", Writer: hasty(server.Listener.Addr().String(), "/late/"), Key: "a", Err: origintest.ErrUnknown, Secret: "s3cret", Hangs: true},
		{Name: "takes no body", Writer: hasty(origintest.Saying(t, ""), "/"), Key: "a", Value: strings.Repeat(big, 16), Err: origintest.ErrUnknown, Secret: "s3cret", Hangs: true},
		{Name: "drips", Writer: hasty(origintest.Dripping(t, "HTTP/1.1 200", "x"), "/"), Key: "a", Err: origintest.ErrUnknown, Secret: "s3cret", Hangs: true},
		{Name: "garbage", Writer: hasty(origintest.Saying(t, "\x00garbage\r\n\r\n"), "/"), Key: "a", Err: origintest.ErrUnknown, Secret: "s3cret"},
		{Name: "drops the connection", Writer: hasty(origintest.Cutting(t, ""), "/"), Key: "a", Err: origintest.ErrUnknown, Secret: "s3cret"},
		{Name: "nobody listens", Writer: hasty(testenv.Refusing(t), "/"), Key: "a", Err: loader.ErrNotWritten, Secret: "s3cret"},
		{Name: "through a proxy", Writer: proxied, Key: "proxied", Value: "1"},
	})
	proxy.Lose(true)
	origintest.RunWrites(t, []origintest.Write{
		{Name: "done, and its answer lost", Writer: proxied, Key: "proxied", Value: "2", Err: origintest.ErrUnknown, Secret: "s3cret"},
		{Name: "the same for a deletion", Writer: proxied, Key: "big", Delete: true, Err: origintest.ErrUnknown, Secret: "s3cret"},
	})
	const put = "PUT application/octet-stream s3cret: "
	for path, want := range map[string]string{
		"/values/a/b": put + "2", "/values/empty": put, "/values/gone": "", "/values/post": "POST text/plain s3cret: 1",
		"/values/proxied": put + "2", "/values/big": "", "/values/moved": "",
	} {
		if got := kept.value(path); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}
