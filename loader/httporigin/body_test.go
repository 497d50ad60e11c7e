package httporigin

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

func zipped(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(text))
	_ = w.Close()
	return b.String()
}

// TestEncodings checks that a body is decoded from what was asked for, within the limit of the decoded
// value, and that a body in any other encoding is neither a value nor a list.
func TestEncodings(t *testing.T) {
	t.Parallel()
	const text, most = "hello hello\n", 1000
	gz := zipped(text)
	var z bytes.Buffer
	w := zlib.NewWriter(&z)
	_, _ = w.Write([]byte(text))
	_ = w.Close()
	type answer struct {
		body    string
		headers []string // values of Content-Encoding
		raw     string   // header lines instead of a length: the body ends with the connection
	}
	cases := []struct {
		name string
		answer
		want string
		err  error
	}{
		{"plain", answer{body: text}, text, nil},
		{"identity", answer{body: text, headers: []string{"identity"}}, text, nil},
		{"an empty header", answer{body: text, headers: []string{""}}, text, nil},
		{"gzip", answer{body: gz, headers: []string{"gzip"}}, text, nil},
		{"upper case", answer{body: gz, headers: []string{"GZIP"}}, text, nil},
		{"x-gzip", answer{body: gz, headers: []string{"x-gzip"}}, text, nil},
		{"gzip and identity", answer{body: gz, headers: []string{" gzip , identity"}}, text, nil},
		{"two members", answer{body: zipped("hello ") + zipped("hello\n"), headers: []string{"gzip"}}, text, nil},
		{"nothing in gzip", answer{body: zipped(""), headers: []string{"gzip"}}, "", nil},
		{"no body", answer{headers: []string{"gzip"}}, "", nil},
		{"gzip until the end", answer{body: gz, headers: []string{"gzip"}, raw: "X: y\r\n"}, text, nil},
		{"nothing until the end", answer{headers: []string{"gzip"}, raw: "X: y\r\n"}, "", origintest.ErrAny},
		{"as long as may be", answer{body: zipped(strings.Repeat("x\n", most/2)), headers: []string{"gzip"}}, strings.Repeat("x\n", most/2), nil},
		{"longer when decoded", answer{body: zipped(strings.Repeat("x", 10<<20)), headers: []string{"gzip"}}, "", loader.ErrTooLarge},
		{"gzip twice", answer{body: zipped(gz), headers: []string{"gzip, gzip"}}, "", loader.ErrPermanent},
		{"gzip in two headers", answer{body: zipped(gz), headers: []string{"gzip", "gzip"}}, "", loader.ErrPermanent},
		{"gzip, then br", answer{body: gz, headers: []string{"gzip", "br"}}, "", loader.ErrPermanent},
		{"br", answer{body: "\x0b\x02\x80", headers: []string{"br"}}, "", loader.ErrPermanent},
		{"zstd", answer{body: "\x28\xb5\x2f\xfd", headers: []string{"ZSTD"}}, "", loader.ErrPermanent},
		{"deflate", answer{body: z.String(), headers: []string{"deflate"}}, "", loader.ErrPermanent},
		{"compress", answer{body: "\x1f\x9d", headers: []string{"compress"}}, "", loader.ErrPermanent},
		{"unknown", answer{body: text, headers: []string{"utf-8"}}, "", loader.ErrPermanent},
		{"cut", answer{body: gz[:len(gz)-8], headers: []string{"gzip"}}, "", origintest.ErrAny},
		{"cut at its beginning", answer{body: gz[:4], headers: []string{"gzip"}}, "", origintest.ErrAny},
		{"another sum", answer{body: gz[:len(gz)-8] + "xxxx" + gz[len(gz)-4:], headers: []string{"gzip"}}, "", origintest.ErrAny},
		{"more behind it", answer{body: gz + "more than gzip", headers: []string{"gzip"}}, "", origintest.ErrAny},
		{"no gzip", answer{body: text, headers: []string{"gzip"}}, "", origintest.ErrAny},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		a := cases[i].answer
		if got := r.Header.Values("Accept-Encoding"); len(got) != 1 || got[0] != "gzip" {
			t.Errorf("%q was asked for", got)
		}
		if a.raw == "" {
			w.Header()["Content-Encoding"] = a.headers
			w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
			fmt.Fprint(w, a.body)
			return
		}
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		fmt.Fprintf(c, "HTTP/1.0 200 OK\r\nContent-Encoding: %s\r\n%s\r\n%s", a.headers[0], a.raw, a.body)
	}))
	defer server.Close()
	s := source(t, Config{URL: server.URL + "/{key}"}, loader.OriginOptions{MaxValue: most})
	var loads []origintest.Case
	var lists []origintest.List
	for i, tc := range cases {
		loads = append(loads, origintest.Case{Name: tc.name, Source: s, Key: strconv.Itoa(i), Want: loader.Value{Bytes: []byte(tc.want)}, Err: tc.err})
		if tc.err == loader.ErrTooLarge || strings.HasPrefix(tc.name, "as long") { // a list has no limit
			continue
		}
		l, err := s.NewLister(loader.List{URL: server.URL + "/" + strconv.Itoa(i)})
		testenv.Must(t, err)
		want := strings.Fields(strings.ReplaceAll(tc.want, " ", "_"))
		for i, line := range want {
			want[i] = strings.ReplaceAll(line, "_", " ")
		}
		lists = append(lists, origintest.List{Name: tc.name, Lister: l, Want: want, Err: tc.err})
	}
	origintest.Run(t, loads)
	origintest.RunLists(t, lists)

	_, err := s.Load(t.Context(), []byte("17"))
	if text := fmt.Sprint(err); !strings.Contains(text, `"br"`) || !strings.Contains(text, strings.TrimPrefix(server.URL, "http://")) || !strings.Contains(text, "Accept-Encoding") {
		t.Errorf("the error names encoding, host and remedy: %v", err)
	}
}

// TestAcceptEncoding checks that only what is decoded can be asked for, and that gzip is refused where it
// was not.
func TestAcceptEncoding(t *testing.T) {
	for value, ok := range map[string]bool{"identity": true, "gzip": true, "br": false, "gzip, br": false, "*": false} {
		if _, err := New(Config{URL: "http://h/{key}", Headers: map[string]string{"accept-encoding": value}}, loader.OriginOptions{}); (err == nil) != ok {
			t.Errorf("%q: %v", value, err)
		}
	}
	var asked, gives string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Header.Get("Accept-Encoding")
		w.Header().Set("Content-Encoding", gives)
		fmt.Fprint(w, "x")
	}))
	defer server.Close()
	s := source(t, Config{URL: server.URL + "/{key}", Headers: map[string]string{"Accept-Encoding": "identity"}})
	if v, err := s.Load(t.Context(), []byte("k")); err != nil || string(v.Bytes) != "x" || asked != "identity" {
		t.Errorf("%q, %v; %q was asked for", v.Bytes, err, asked)
	}
	gives = "gzip"
	if v, err := s.Load(t.Context(), []byte("k")); err == nil {
		t.Errorf("gzip that was not asked for: %q", v.Bytes)
	}
}

// FuzzGzip checks that any bytes that are said to be gzip give a value within the limit, or an error.
func FuzzGzip(f *testing.F) {
	for _, seed := range []string{"", "x", zipped(""), zipped("hello"), zipped("a") + zipped("b"), zipped(strings.Repeat("x", 10_000))} {
		f.Add([]byte(seed))
	}
	s, err := New(Config{URL: "http://h/{key}"}, loader.OriginOptions{MaxValue: 1000})
	testenv.Must(f, err)
	f.Fuzz(func(t *testing.T, body []byte) {
		resp := &http.Response{
			StatusCode: http.StatusOK, Header: http.Header{"Content-Encoding": {"gzip"}}, ProtoMajor: 1,
			Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
		}
		v, err := s.value(resp)
		if len(v.Bytes) > 1000 || err != nil && v.Bytes != nil || err == nil && len(body) > 0 && len(body) < 18 {
			t.Errorf("%q: %d bytes, %v", body, len(v.Bytes), err)
		}
	})
}
