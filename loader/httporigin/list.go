package httporigin

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/cachesidecar/cachesidecar/loader"
)

// lister reads the list of all keys from a URL.
type lister struct {
	source *Source
	list   loader.List
	host   string
	client *http.Client
}

// NewLister validates the configuration. Its requests have the source's header.
func (s *Source) NewLister(list loader.List) (loader.Lister, error) {
	list, err := list.Only("url")
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(list.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("http origin: the URL of its list must begin with http:// or https:// and a host")
	}
	// A list takes a long time, and loads must not wait for its connection, so the
	// lister has its own client.
	client := newClient(1)
	transport := client.Transport.(*http.Transport)
	transport.DisableKeepAlives = true
	transport.Protocols = new(http.Protocols) // the frames of HTTP/2 would cost beside the list
	transport.Protocols.SetHTTP1(true)
	return &lister{s, list, u.Host, client}, nil
}

// Keys calls each for every line of the answer.
func (l *lister) Keys(ctx context.Context, each func(key []byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, l.list.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.list.URL, nil)
	if err != nil {
		return withoutURL(l.host, err)
	}
	l.source.addHeader(req)
	resp, err := l.client.Do(req)
	if err != nil {
		return withoutURL(l.host, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return unexpected(l.host, resp.StatusCode)
	}
	listing := l.list.Begin(ctx, each)
	resp.Body = &listedBody{resp.Body, listing}
	body, _, err := l.source.decoded(resp)
	if err != nil {
		return withoutURL(l.host, err)
	}
	if body == resp.Body && unbounded(resp) { // gzip marks its own end
		return fmt.Errorf("%w: http origin %s: the list has neither Content-Length nor chunks, so half of it looks "+
			"like all: have the server send one of them", loader.ErrPermanent, l.host)
	}
	lines := loader.NewLines(listing)
	if _, err := io.Copy(lines, body); err != nil {
		if refused := lines.Err(); refused != nil {
			return refused
		}
		return withoutURL(l.host, err)
	}
	return lines.Close()
}

// listedBody is the body of a list, whose bytes count.
type listedBody struct {
	io.ReadCloser
	listing *loader.Listing
}

func (b *listedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	return n, cmp.Or(err, b.listing.Bytes(n))
}
