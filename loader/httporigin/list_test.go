package httporigin

import (
	"compress/gzip"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

func TestList(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("/list", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "a\r\n%s\n\nä b\n", r.Header.Get("X-Token"))
	})
	mux.HandleFunc("/empty", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/many", func(w http.ResponseWriter, r *http.Request) {
		for i := range 1000 {
			fmt.Fprintf(w, "key-%04d\n", i)
			w.(http.Flusher).Flush()
		}
	})
	mux.HandleFunc("/gzip", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		fmt.Fprint(z, "a\nb")
		z.Close()
	})
	mux.HandleFunc("/page", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, strings.Repeat("<html>", 1000)) })
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		var code int
		fmt.Sscan(r.PathValue("code"), &code)
		w.WriteHeader(code)
	})
	mux.HandleFunc("/cut", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "a\nb\n")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	server := httptest.NewServer(mux)
	defer server.Close()

	s := source(t, Config{URL: server.URL + "/{key}", Headers: map[string]string{"X-Token": "s3cret"}, Connections: 1})
	at := func(url string, timeout time.Duration) loader.Lister {
		l, err := s.NewLister(loader.List{URL: url, Timeout: timeout})
		testenv.Must(t, err)
		return l
	}
	here := func(path string) loader.Lister { return at(server.URL+path, origintest.Never) }
	raw := func(address string) loader.Lister {
		return at("http://"+address+"/?token=s3cret", 300*time.Millisecond)
	}
	patient := func(address string) loader.Lister {
		return at("http://"+address+"/?token=s3cret", origintest.Never)
	}
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprintf("key-%04d", i))
	}
	const head = "HTTP/1.1 200 OK\r\n"
	origintest.RunLists(t, []origintest.List{
		{Name: "keys", Lister: here("/list"), Want: []string{"a", "s3cret", "ä b"}},
		{Name: "none", Lister: here("/empty")},
		{Name: "many", Lister: here("/many"), Want: many},
		{Name: "compressed", Lister: here("/gzip"), Want: []string{"a", "b"}},
		{Name: "a page", Lister: here("/page"), Err: loader.ErrPermanent},
		{Name: "absent", Lister: here("/status/404"), Err: loader.ErrPermanent},
		{Name: "no content", Lister: here("/status/204"), Err: loader.ErrPermanent},
		{Name: "error", Lister: here("/status/500"), Err: origintest.ErrAny},
		{Name: "drops the connection", Lister: here("/cut"), Err: origintest.ErrAny},
		{Name: "drops a connection without a length", Lister: patient(origintest.Cutting(t, head+"\r\na\nb\n")), Err: loader.ErrPermanent, Secret: "s3cret"},
		{Name: "drops a connection with a length", Lister: patient(origintest.Cutting(t, head+"Content-Length: 5\r\n\r\na\nb\n")), Err: origintest.ErrAny, Secret: "s3cret"},
		{Name: "a length", Lister: patient(origintest.Cutting(t, head+"Content-Length: 4\r\n\r\na\nb\n")), Want: []string{"a", "b"}},
		{Name: "drips", Lister: raw(origintest.Dripping(t, head+"Content-Length: 100000\r\n\r\n", "x\n")), Err: origintest.ErrAny},
		{Name: "hangs", Lister: raw(origintest.Saying(t, "")), Err: origintest.ErrAny, Secret: "s3cret"},
		{Name: "garbage", Lister: raw(origintest.Saying(t, "\x00garbage\r\n\r\n")), Err: origintest.ErrAny, Secret: "s3cret"},
		{Name: "nobody listens", Lister: raw(testenv.Refusing(t)), Err: origintest.ErrAny, Secret: "s3cret"},
	})

	for _, cfg := range []loader.List{{}, {URL: "/keys"}, {URL: "ftp://h/keys"}, {URL: "http://h/keys", Timeout: -1}} {
		if _, err := s.NewLister(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

// A slow list does not keep a load from the only connection.
func TestListBesideLoads(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/keys" {
			close(asked)
			<-release
		}
		fmt.Fprint(w, "a\n")
	}))
	defer server.Close()
	s := source(t, Config{URL: server.URL + "/values/{key}", Connections: 1})
	l, err := s.NewLister(loader.List{URL: server.URL + "/keys"})
	testenv.Must(t, err)
	ended := make(chan error, 1)
	go func() { // ends after release is closed
		_, err := origintest.Keys(l)
		ended <- err
	}()
	<-asked
	testenv.Should(t, testenv.ErrorOf(s.Load(t.Context(), []byte("a"))))
	close(release)
	testenv.Should(t, <-ended)
}
