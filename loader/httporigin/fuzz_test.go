package httporigin

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/loader"
)

// FuzzLifetime checks lifetime with any headers: the result is always a valid TTL, a
// greater age never extends it, and directives that forbid caching are obeyed.
func FuzzLifetime(f *testing.F) {
	for _, seed := range [][2]string{
		{"", ""}, {"max-age=60", "7"}, {"Max-Age=\"60\", s-maxage=1", "-1"}, {"no-store", ""}, {"private=\"x\", max-age=5", "a"},
		{"max-age=99999999999999999999", "99999999999999999999"}, {"max-age=60,,=,max-age", " 1"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, control, age string) {
		header := func(control, age string) http.Header {
			return http.Header{"Cache-Control": {control}, "Age": {age}}
		}
		ttl, noStore := lifetime(header(control, age))
		if ttl < 0 || ttl > maxTTL || ttl%time.Second != 0 || noStore && ttl != 0 {
			t.Errorf("%q, age %q: %v, %v", control, age, ttl, noStore)
		}
		if young, forbids := lifetime(header(control, "")); !noStore && (forbids || ttl > young) {
			t.Errorf("%q: %v, %v without an age, and %v with %q", control, young, forbids, ttl, age)
		}
		if ttl, noStore := lifetime(header(control+", no-store", age)); ttl != 0 || !noStore {
			t.Errorf("%q and no-store: %v, %v", control, ttl, noStore)
		}
	})
}

// sent is a transport that sends nothing and records the URL.
type sent struct{ url *url.URL }

func (s *sent) RoundTrip(r *http.Request) (*http.Response, error) {
	s.url = r.URL
	return nil, errors.New("nothing is sent")
}

// FuzzURL checks that a key stays in its place in the URL. It does not change the host,
// adds no segment to the path and no parameter to the query, and the server decodes it
// unchanged.
func FuzzURL(f *testing.F) {
	for _, seed := range [][2]string{
		{"http://h/{key}", "a"}, {"http://h/{key}", ".."}, {"http://h/a/{key}/b?c=d", "a/b"}, {"https://h:1/?k={key}&x=y", "a&x=z#e"},
		{"http://h/a.{key}", "."}, {"http://h/{key}%zz", "a"}, {"http://h/é/{key}", "../b"}, {"http://0/ {key}", "/"}, {"http://h/é/{key}?x=a%2Fb", "/"}, {"http://h/é?k={key}", "/"}, {"http://u:p@h/{key}", "@x"}, {"http://h/%2e{key}", "."}, {"http://h/{key}.", "."}, {"http://h/a/{key}", "\x00\xff%2f\\"},
	} {
		f.Add(seed[0], []byte(seed[1]))
	}
	f.Fuzz(func(t *testing.T, template string, key []byte) {
		s, err := New(Config{URL: template}, loader.OriginOptions{})
		if err != nil || len(key) == 0 {
			return
		}
		to := func(key []byte) (*url.URL, error) {
			var transport sent
			s.client.current, s.client.term = &http.Client{Transport: &transport}, s.client.terms.Begin()
			_, err := s.Load(context.Background(), key)
			return transport.url, err
		}
		plain, err := to([]byte("k"))
		if plain == nil {
			t.Fatalf("%q is taken, and makes no URL: %v", template, err)
		}
		u, err := to(key)
		if u == nil {
			if !errors.Is(err, loader.ErrBadKey) {
				t.Errorf("%q with %q: %v", template, key, err)
			}
			return
		}
		if u.Scheme != plain.Scheme || u.Host != plain.Host || u.User.String() != plain.User.String() {
			t.Errorf("%q with %q asks %s", template, key, u)
		}
		before, after, _ := strings.Cut(template, placeholder)
		if strings.Contains(before, "?") {
			if u.EscapedPath() != plain.EscapedPath() || strings.Count(u.RawQuery, "&") != strings.Count(plain.RawQuery, "&") {
				t.Errorf("%q with %q asks for %s", template, key, u)
			}
			return
		}
		segments := strings.Split(u.EscapedPath(), "/")
		if u.RawQuery != plain.RawQuery || len(segments) != strings.Count(plain.EscapedPath(), "/")+1 {
			t.Errorf("%q with %q asks for %s", template, key, u)
		}
		for i, segment := range segments {
			name, err := url.PathUnescape(segment)
			folder := name == "." || name == ".."
			if err != nil || folder && strings.Split(plain.EscapedPath(), "/")[i] != segment {
				t.Errorf("%q with %q asks for %s", template, key, u)
			}
		}
		if at := slices.Index(segments, url.PathEscape(string(key))); at < 0 && strings.HasSuffix(before, "/") && (after == "" || after[0] == '/') {
			t.Errorf("%q with %q asks for %s, where the key is not", template, key, u)
		}
	})
}
