// Package httporigin loads values from a web server, with one URL per key.
//
// The input is a URL template in which {key} is replaced by the escaped key. The value
// is the body of an answer with status 200 or 203, plain or in gzip. The statuses that mean "absent" are
// configurable. The statuses 408, 425, 429 and those of 500 and above may be retried,
// all others not. Redirects are not followed, because they would lead to servers that
// are not configured.
//
// Writes go to the same URLs, with PUT and DELETE. A list of all keys is read from another
// URL, over HTTP/1.1, one key per line. It cannot have keys that contain a line feed.
//
// The package starts no goroutine itself; net/http keeps two per idle connection until
// Close. The package is not a proxy: it does not forward headers of the app or of the
// answer, and it ignores Vary.
package httporigin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar/loader"
)

// Config has the settings of the server.
type Config struct {
	// URL is the address of a value, with "{key}" in the place of the key. Required. Bounds:
	// "{key}" once, in the path or the query.
	URL string `yaml:"url" answers:"path"`
	// Method is the method of the request. Default: "GET".
	Method string `yaml:"method" answers:"yes" default:"GET"`
	// Headers are headers of every request. Secrets must be given as HeaderFiles. Form:
	// names with values. Default: none. Bounds: no "Authorization", "Cookie" or
	// "Proxy-Authorization".
	Headers map[string]string `yaml:"headers"`
	// HeaderFiles are files whose contents are sent as headers. Form: names with paths.
	// Default: none.
	HeaderFiles map[string]string `yaml:"header_files"`
	// Absent are the statuses that say that there is no such key. Form: list of statuses.
	// Default: [404, 410]. Bounds: 200 to 599.
	Absent []int `yaml:"absent" answers:"set" default:"404, 410"`
	// CacheControl uses the answer's s-maxage or max-age, minus its Age, as the TTL. The
	// directives no-store, no-cache and private forbid caching the value.
	CacheControl bool `yaml:"cache_control" answers:"yes"`
	// Connections is the largest number of connections, open or idle. Default: 64. Bounds:
	// up to 65536.
	Connections int `yaml:"connections"`

	Write WriteConfig `yaml:",inline"`
}

const defaultConnections = 64

// SameServer reports whether an address is on the server of the values.
func (cfg Config) SameServer(address string) bool {
	a, err := url.Parse(address)
	b, bad := url.Parse(cfg.URL)
	return err != nil || bad != nil || strings.EqualFold(a.Host, b.Host)
}

// Kind returns "http".
func (Config) Kind() string { return "http" }

// Descriptors returns the maximum number of file descriptors that calls use.
func (cfg Config) Descriptors() int { return cmp.Or(cfg.Connections, defaultConnections) }

// Open opens the origin. It connects at the first load.
func (cfg Config) Open(o loader.OriginOptions) (*loader.Origin, error) {
	s, err := New(cfg, o)
	if err != nil {
		return nil, err
	}
	return &loader.Origin{Source: s, Writer: s, List: s.NewLister, Close: s.Close, Secrets: s.secrets}, nil
}

const placeholder = "{key}"

// defaultTimeout is the time of a whole request, including the body.
const defaultTimeout = 5 * time.Second

// Source loads values from the server, and writes them there. It is safe for concurrent use.
type Source struct {
	cfg           Config
	options       loader.OriginOptions
	header        http.Header
	secrets       []string // the secrets among the values in header
	before, after string   // the URL before and after the key
	inQuery       bool
	host          string
	client        *client
}

// New validates the configuration. It contacts no server.
func New(cfg Config, o loader.OriginOptions) (*Source, error) {
	header, secrets, err := cfg.header()
	if err := errors.Join(cfg.check(), err); err != nil {
		return nil, err
	}
	before, after, found := strings.Cut(cfg.URL, placeholder)
	if !found || strings.Contains(after, placeholder) {
		return nil, fmt.Errorf("http origin: its URL must have %s once, where the key goes", placeholder)
	}
	u, err := url.Parse(before)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("http origin: its URL must begin with http:// or https:// and a host, before %s",
			placeholder)
	}
	if u.Path == "" && u.RawQuery == "" || strings.Contains(before, "#") {
		return nil, fmt.Errorf("http origin: %s must stand in the URL's path or query, after the host", placeholder)
	}
	o, err = o.WithDefaults("http", defaultTimeout, cfg.Write != WriteConfig{})
	if err != nil {
		return nil, err
	}
	cfg.Method = cmp.Or(cfg.Method, http.MethodGet)
	cfg.Write.defaults()
	for _, method := range []string{cfg.Method, cfg.Write.StoreMethod, cfg.Write.DeleteMethod} {
		if _, err := http.NewRequest(method, before, nil); err != nil {
			return nil, fmt.Errorf("http origin: method %q is not a method", method)
		}
	}
	// If the template has a character that must be escaped and is not, net/url escapes
	// the path again and the escapes of the key are lost: a slash in the key would
	// become a slash of the path.
	probe, err := url.Parse(before + "a%2Fb" + after)
	if err != nil || !strings.Contains(before, "?") && !strings.Contains(probe.EscapedPath(), "a%2Fb") {
		return nil, fmt.Errorf("http origin: its URL has something that must be escaped: " +
			"write %%20 for a space, %%25 for a %%, %%C3%%A9 for an é")
	}
	cfg.Connections = cmp.Or(cfg.Connections, defaultConnections)
	if cfg.Absent == nil {
		cfg.Absent = []int{http.StatusNotFound, http.StatusGone}
	}
	return &Source{
		cfg: cfg, options: o, header: header, secrets: secrets,
		before: before, after: after, inQuery: strings.Contains(before, "?"), host: u.Host,
		client: &client{connections: cfg.Connections},
	}, nil
}

// Close closes idle connections.
func (s *Source) Close() error {
	s.client.close()
	return nil
}

// Load requests the value of one key. An absent key gives ErrAbsent.
func (s *Source) Load(ctx context.Context, key []byte) (loader.Value, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	req, err := s.request(ctx, s.cfg.Method, key, nil)
	if err != nil {
		return loader.Value{}, err
	}
	resp, err := s.client.do(req)
	if err != nil {
		return loader.Value{}, withoutURL(s.host, err)
	}
	defer resp.Body.Close()
	return s.value(resp)
}

// request makes a request for a key.
func (s *Source) request(ctx context.Context, method string, key []byte, body io.Reader) (*http.Request, error) {
	escaped := url.QueryEscape(string(key))
	if !s.inQuery {
		escaped = url.PathEscape(string(key))
		// Servers resolve such a segment to another path, and escaping does not prevent
		// it.
		if escaped == "." || escaped == ".." {
			return nil, fmt.Errorf("%w: %q is a folder in a URL's path", loader.ErrBadKey, key)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, s.before+escaped+s.after, body)
	if err != nil {
		return nil, fmt.Errorf("%w: it makes no URL", loader.ErrBadKey)
	}
	s.addHeader(req)
	return req, nil
}

func (s *Source) addHeader(req *http.Request) {
	req.Header = s.header.Clone()
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
}

// withoutURL removes the URL from an error, because it contains the key and may contain a
// secret.
func withoutURL(host string, err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	return fmt.Errorf("http origin %s: %w", host, err)
}

// retried are the statuses below 500 after which a request may be sent again.
var retried = []int{http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests}

// unexpected returns the error for a status that is not a valid answer.
func unexpected(host string, code int) error {
	err := statusError{host, code}
	switch {
	case code >= 500, slices.Contains(retried, code):
		return err
	case code == http.StatusUnauthorized:
		return fmt.Errorf("%w: %w", loader.ErrRefused, err)
	case code >= 300 && code < 400:
		return fmt.Errorf("%w: %w, a redirect: configure the URL that it leads to", loader.ErrPermanent, err)
	}
	return fmt.Errorf("%w: %w", loader.ErrPermanent, err)
}

// statusError is an answer with an unexpected status.
type statusError struct {
	host string
	code int
}

func (e statusError) Error() string { return fmt.Sprintf("http origin %s: status %d", e.host, e.code) }

// Status returns the status.
func (e statusError) Status() int { return e.code }

func (s *Source) value(resp *http.Response) (loader.Value, error) {
	code := resp.StatusCode
	switch {
	case slices.Contains(s.cfg.Absent, code):
		return loader.Value{}, loader.ErrAbsent
	case code != http.StatusOK && code != http.StatusNonAuthoritativeInfo:
		return loader.Value{}, unexpected(s.host, code)
	}
	reserved := loader.Reservation{Memory: s.options.Memory}
	defer reserved.Free()
	plain, length, err := s.decoded(resp)
	if err != nil {
		return loader.Value{}, withoutURL(s.host, err)
	}
	body, err := readBody(plain, length, s.options.MaxValue+1, &reserved)
	if err != nil {
		return loader.Value{}, withoutURL(s.host, err)
	}
	if len(body) > s.options.MaxValue {
		return loader.Value{}, fmt.Errorf("%w: http origin %s: a body of more than %d bytes",
			loader.ErrTooLarge, s.host, s.options.MaxValue)
	}
	v := loader.Value{Bytes: body}
	if s.cfg.CacheControl {
		v.TTL, v.NoStore = lifetime(resp.Header)
	}
	return v, nil
}
