// Package httporigin loads values from a web server: one URL per key.
//
// Input is a URL template in which {key} stands for the key, escaped; output is
// the body of an answer 200 or 203. Statuses that mean "absent" are configured.
// 408, 425, 429, and those of 500 and more may be retried, all others not. It
// follows no redirects, since they would lead out of what was configured.
//
// The same URLs take changes with PUT and DELETE (Writer); another one gives all
// keys, one a line (Lister). Keys with a line feed in them cannot be listed so.
//
// It starts no goroutine of its own; net/http keeps two per idle connection
// until Close. It is no proxy: neither the app's headers nor the answer's go
// through, and Vary means nothing to it.
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
	"strconv"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar/loader"
)

// Config is the settings of the server.
type Config struct {
	URL    string `yaml:"url"`    // with {key} in its path or query; needed
	Method string `yaml:"method"` // default GET
	// Headers are sent with every request. So are HeaderFiles: the value is the content
	// of the file. Secrets have to be given as files.
	Headers     map[string]string `yaml:"headers"`
	HeaderFiles map[string]string `yaml:"header_files"`
	Absent      []int             `yaml:"absent"` // statuses that say that there is no such key; default 404 and 410
	// CacheControl takes the answer's s-maxage or max-age, less its Age, as the TTL;
	// no-store, no-cache and private forbid to keep the value.
	CacheControl bool `yaml:"cache_control"`
	Connections  int  `yaml:"connections"` // kept idle, and at most open at once; default 64

	Write WriteConfig `yaml:",inline"`

	Timeout  time.Duration `yaml:"-"` // of a whole request, its body included; zero: 5 s
	MaxValue int           `yaml:"-"` // bytes, after decompression; zero: 8 MiB
}

const defaultConnections = 64

// Kind returns "http".
func (Config) Kind() string { return "http" }

// Descriptors returns how many file descriptors the calls use at most.
func (c Config) Descriptors() int { return cmp.Or(c.Connections, defaultConnections) }

// Open opens the origin. It connects at the first load.
func (c Config) Open(o loader.OriginOptions) (*loader.Origin, error) {
	c.Timeout, c.MaxValue = o.Timeout, o.MaxValue
	if err := o.CheckWrites(c.Write != WriteConfig{}); err != nil {
		return nil, err
	}
	s, err := New(c)
	if err != nil {
		return nil, err
	}
	opened := &loader.Origin{
		Source:  s,
		List:    func(l loader.List) (loader.Lister, error) { return s.NewLister(l) },
		Close:   func() error { s.Close(); return nil },
		Secrets: s.secrets,
	}
	if o.WriteThrough {
		opened.Writer, err = s.NewWriter(c.Write)
	}
	return opened, err
}

const placeholder = "{key}"

// Source is the origin.
type Source struct {
	cfg           Config
	header        http.Header
	secrets       []string // among its values
	before, after string   // the key
	inQuery       bool
	host          string
	client        *http.Client
}

// New checks the configuration. It asks nobody.
func New(cfg Config) (*Source, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	header, secrets, err := cfg.header()
	if err != nil {
		return nil, err
	}
	before, after, found := strings.Cut(cfg.URL, placeholder)
	if !found || strings.Contains(after, placeholder) {
		return nil, fmt.Errorf("http origin: its URL must have %s once, where the key goes", placeholder)
	}
	u, err := url.Parse(before)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("http origin: its URL must begin with http:// or https:// and a host, before %s", placeholder)
	}
	if u.Path == "" && u.RawQuery == "" || strings.Contains(before, "#") {
		return nil, fmt.Errorf("http origin: %s must stand in the URL's path or query, after the host", placeholder)
	}
	if cfg.Timeout < 0 || cfg.MaxValue < 0 {
		return nil, fmt.Errorf("http origin: timeout %v, value %d: give zero for the defaults, or more", cfg.Timeout, cfg.MaxValue)
	}
	cfg.Method = cmp.Or(cfg.Method, http.MethodGet)
	if _, err := http.NewRequest(cfg.Method, before, nil); err != nil {
		return nil, fmt.Errorf("http origin: method %q is not a method", cfg.Method)
	}
	// Beside a character that has to be escaped and is not, the escapes of a key
	// do not last: a slash in it would be one of the path's.
	probe, err := url.Parse(before + "a%2Fb" + after)
	if err != nil || !strings.Contains(before, "?") && !strings.Contains(probe.EscapedPath(), "a%2Fb") {
		return nil, fmt.Errorf("http origin: its URL has something that must be escaped: write %%20 for a space, %%25 for a %%, %%C3%%A9 for an é")
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, 5*time.Second)
	cfg.MaxValue = cmp.Or(cfg.MaxValue, 8<<20)
	cfg.Connections = cmp.Or(cfg.Connections, defaultConnections)
	if cfg.Absent == nil {
		cfg.Absent = []int{http.StatusNotFound, http.StatusGone}
	}
	return &Source{
		cfg: cfg, header: header, secrets: secrets, before: before, after: after, inQuery: strings.Contains(before, "?"), host: u.Host,
		client: newClient(cfg.Connections),
	}, nil
}

// newClient follows no redirects.
func newClient(connections int) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost, transport.MaxConnsPerHost = connections, connections
	transport.MaxResponseHeaderBytes = 64 << 10
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Close ends idle connections.
func (s *Source) Close() { s.client.CloseIdleConnections() }

// Load asks for one key.
func (s *Source) Load(ctx context.Context, key []byte) (loader.Value, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	req, err := s.request(ctx, s.cfg.Method, key, nil)
	if err != nil {
		return loader.Value{}, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return loader.Value{}, failed(s.host, err)
	}
	defer resp.Body.Close()
	return s.value(resp)
}

// request makes one about a key.
func (s *Source) request(ctx context.Context, method string, key []byte, body io.Reader) (*http.Request, error) {
	escaped := url.QueryEscape(string(key))
	if !s.inQuery {
		escaped = url.PathEscape(string(key))
		// Servers take such a path as another one, and no escape prevents it.
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

// failed drops the URL from an error: it has the key, and may have a secret.
func failed(host string, err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	return fmt.Errorf("http origin %s: %w", host, err)
}

// unexpected is an error for a status that is no answer.
func unexpected(host string, code int) error {
	switch {
	case code >= 500, code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code == http.StatusTooEarly:
		return fmt.Errorf("http origin %s: status %d", host, code)
	case code >= 300 && code < 400:
		return fmt.Errorf("%w: http origin %s: status %d, a redirect: configure the URL that it leads to", loader.ErrPermanent, host, code)
	}
	return fmt.Errorf("%w: http origin %s: status %d", loader.ErrPermanent, host, code)
}

func (s *Source) value(resp *http.Response) (loader.Value, error) {
	code := resp.StatusCode
	switch {
	case slices.Contains(s.cfg.Absent, code):
		return loader.Value{}, loader.ErrAbsent
	case code != http.StatusOK && code != http.StatusNonAuthoritativeInfo:
		return loader.Value{}, unexpected(s.host, code)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(s.cfg.MaxValue)+1))
	if err != nil {
		return loader.Value{}, failed(s.host, err)
	}
	if len(body) > s.cfg.MaxValue {
		return loader.Value{}, fmt.Errorf("%w: http origin %s: a body of more than %d bytes", loader.ErrTooLarge, s.host, s.cfg.MaxValue)
	}
	v := loader.Value{Bytes: body}
	if s.cfg.CacheControl {
		v.TTL, v.NoStore = lifetime(resp.Header)
	}
	return v, nil
}

// maxTTL is a year: what is longer is as good as that.
const maxTTL = 365 * 24 * time.Hour

// lifetime reads Cache-Control as a shared cache does (RFC 9111). Without a
// lifetime there it is the namespace's.
func lifetime(h http.Header) (ttl time.Duration, noStore bool) {
	maxAge, shared := int64(-1), int64(-1)
	for _, field := range h.Values("Cache-Control") {
		for directive := range strings.SplitSeq(field, ",") {
			name, arg, _ := strings.Cut(strings.TrimSpace(directive), "=")
			switch strings.ToLower(name) {
			case "no-store", "no-cache", "private":
				noStore = true
			case "max-age":
				maxAge = seconds(arg)
			case "s-maxage":
				shared = seconds(arg)
			}
		}
	}
	if shared >= 0 {
		maxAge = shared
	}
	if noStore || maxAge < 0 {
		return 0, noStore
	}
	left := maxAge
	if age := h.Get("Age"); age != "" {
		left -= max(0, seconds(age))
	}
	if left <= 0 {
		return 0, true
	}
	return time.Duration(left) * time.Second, false
}

// seconds reads a number of seconds, at most maxTTL; what is none is zero: such
// a directive is best taken as "at its end" (RFC 9111, 4.2.1).
func seconds(s string) int64 {
	n, err := strconv.ParseInt(strings.Trim(s, `"`), 10, 64)
	if errors.Is(err, strconv.ErrRange) && n > 0 {
		return int64(maxTTL / time.Second)
	}
	return min(max(n, 0), int64(maxTTL/time.Second))
}
