package httporigin

import (
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

func TestMain(m *testing.M) { testenv.Main(m) }

// source opens an origin with write-through.
func source(t *testing.T, cfg Config, options ...loader.OriginOptions) *Source {
	t.Helper()
	return origintest.Open(t, New, cfg, options...)
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/value/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, r.Method, " ", r.URL.EscapedPath(), " ", r.Header.Get("X-Token"))
	})
	mux.HandleFunc("/query", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.RawQuery) })
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		var code int
		fmt.Sscan(r.PathValue("code"), &code)
		w.Header().Set("Location", "/value/x")
		w.WriteHeader(code)
	})
	mux.HandleFunc("/size/{n}", func(w http.ResponseWriter, r *http.Request) {
		var n int
		fmt.Sscan(r.PathValue("n"), &n)
		fmt.Fprint(w, strings.Repeat("x", n))
	})
	mux.HandleFunc("/hang", func(http.ResponseWriter, *http.Request) { <-release })
	mux.HandleFunc("/cut", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "x")
		panic(http.ErrAbortHandler)
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	defer close(release)

	at := func(path string) *Source {
		return source(t, Config{URL: server.URL + path}, loader.OriginOptions{MaxValue: 1000})
	}
	hasty := func(url string) *Source {
		return source(t, Config{URL: url}, loader.OriginOptions{Timeout: 100 * time.Millisecond})
	}
	ok := func(s string) loader.Value { return loader.Value{Bytes: []byte(s)} }
	origintest.Run(t, []origintest.Case{
		{Name: "value", Source: at("/value/{key}"), Key: "a", Want: ok("GET /value/a ")},
		{Name: "escaped in the path", Source: at("/value/{key}/x"), Key: "../a?b#c/é", Want: ok("GET /value/..%2Fa%3Fb%23c%2F%C3%A9/x ")},
		{Name: "escaped in the query", Source: at("/query?k={key}&z=1"), Key: "a&b=c d", Want: ok("k=a%26b%3Dc+d&z=1")},
		{Name: "method and header", Key: "a", Want: ok("POST /value/a s3cret"),
			Source: source(t, Config{URL: server.URL + "/value/{key}", Method: "POST", Headers: map[string]string{"X-Token": "s3cret"}})},
		{Name: "Cache-Control", Key: "a", Want: loader.Value{Bytes: []byte("GET /value/a "), TTL: time.Minute},
			Source: source(t, Config{URL: server.URL + "/value/{key}", CacheControl: true})},
		{Name: "absent", Source: at("/status/{key}"), Key: "404", Err: loader.ErrAbsent},
		{Name: "gone", Source: at("/status/{key}"), Key: "410", Err: loader.ErrAbsent},
		{Name: "absent as configured", Key: "403", Err: loader.ErrAbsent, Source: source(t, Config{URL: server.URL + "/status/{key}", Absent: []int{403}})},
		{Name: "and nothing else then", Key: "404", Err: loader.ErrPermanent, Source: source(t, Config{URL: server.URL + "/status/{key}", Absent: []int{403}})},
		{Name: "error", Source: at("/status/{key}"), Key: "500", Err: origintest.ErrAny},
		{Name: "too many", Source: at("/status/{key}"), Key: "429", Err: origintest.ErrAny},
		{Name: "refused", Source: at("/status/{key}"), Key: "401", Err: loader.ErrPermanent},
		{Name: "redirect", Source: at("/status/{key}"), Key: "302", Err: loader.ErrPermanent},
		{Name: "as long as may be", Source: at("/size/{key}"), Key: "1000", Want: ok(strings.Repeat("x", 1000))},
		{Name: "too long", Source: at("/size/{key}"), Key: "1001", Err: loader.ErrTooLarge},
		{Name: "empty", Source: at("/size/{key}"), Key: "0", Want: ok("")},
		{Name: "bad key", Source: at("/value/{key}"), Key: "..", Err: loader.ErrBadKey},
		{Name: "hangs", Source: hasty(server.URL + "/hang?{key}"), Key: "a", Err: origintest.ErrAny},
		{Name: "drips", Source: hasty("http://" + origintest.Dripping(t, "HTTP/1.1 200 OK\r\n\r\n", "x") + "/{key}"), Key: "a", Err: origintest.ErrAny},
		{Name: "drops the connection", Source: at("/cut?{key}"), Key: "a", Err: origintest.ErrAny},
		{Name: "nobody listens", Source: hasty("http://" + testenv.Refusing(t) + "/x?token=s3cret&k={key}"), Key: "a", Err: origintest.ErrAny, Secret: "s3cret"},
		{Name: "garbage", Source: hasty("http://" + origintest.Saying(t, "\x00\x01garbage\r\n\r\n") + "/x?token=s3cret&k={key}"), Key: "a", Err: origintest.ErrAny, Secret: "s3cret"},
		{Name: "endless header", Source: hasty("http://" + origintest.Saying(t, "HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 100<<10)) + "/{key}"), Key: "a", Err: origintest.ErrAny},
	})
}

func TestLifetime(t *testing.T) {
	for _, tc := range []struct {
		control, age string
		ttl          time.Duration
		noStore      bool
	}{
		{"", "", 0, false},
		{"public", "", 0, false},
		{"max-age=60", "", time.Minute, false},
		{"Max-Age=\"60\"", "", time.Minute, false},
		{"max-age=60, s-maxage=10", "", 10 * time.Second, false},
		{"max-age=60", "50", 10 * time.Second, false},
		{"max-age=60", "60", 0, true},
		{"max-age=0", "", 0, true},
		{"max-age=-5", "", 0, true},
		{"max-age=soon", "", 0, true},
		{"no-store, max-age=60", "", 0, true},
		{"no-cache", "", 0, true},
		{"private=\"x\"", "", 0, true},
		{"max-age=99999999999999999999", "", maxTTL, false},
	} {
		h := http.Header{}
		h.Set("Cache-Control", tc.control)
		h.Set("Age", tc.age)
		if ttl, noStore := lifetime(h); ttl != tc.ttl || noStore != tc.noStore {
			t.Errorf("%q, age %q: %v, %v; want %v, %v", tc.control, tc.age, ttl, noStore, tc.ttl, tc.noStore)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, cfg := range []Config{
		{}, {URL: "http://h/x"}, {URL: "http://{key}/"}, {URL: "http://h{key}"}, {URL: "{key}"}, {URL: "ftp://h/{key}"},
		{URL: "http://h/{key}/{key}"}, {URL: "http://h/#{key}"}, {URL: "http://h/{key}%zz"}, {URL: "http://h/é/{key}"}, {URL: "http://h/{key} x"}, {URL: "http://h/{key}", Method: "G T"}, {URL: "http://h/{key}", Write: WriteConfig{StoreMethod: "P T"}}, {URL: "http://h/{key}", Write: WriteConfig{DeleteMethod: "D T"}}, {URL: "http://u:p@h/{key}"},
	} {
		if _, err := New(cfg, loader.OriginOptions{WriteThrough: true}); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

// TestMemory checks that a body takes memory before it is read, of a length that is known or not.
func TestMemory(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := 20_000
		if strings.HasSuffix(r.URL.Path, "long") {
			n = 200_000
		}
		if strings.HasPrefix(r.URL.Path, "/known") {
			w.Header().Set("Content-Length", fmt.Sprint(n))
		}
		for range n / 1000 {
			fmt.Fprint(w, strings.Repeat("x", 1000))
		}
	}))
	defer server.Close()
	for _, path := range []string{"/known/{key}", "/unknown/{key}"} {
		m := &origintest.Memory{Left: 100_000}
		s := source(t, Config{URL: server.URL + path}, loader.OriginOptions{Memory: m})
		get := func(key string) func() (loader.Value, error) {
			return func() (loader.Value, error) { return s.Load(t.Context(), []byte(key)) }
		}
		origintest.TakesMemory(t, m, get("short"), get("long"))
		if v, err := get("short")(); len(v.Bytes) != 20_000 || err != nil {
			t.Errorf("%s again: %d bytes, %v", path, len(v.Bytes), err)
		}
	}
}
