package httporigin

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar/loader"
)

// WriteConfig has the settings of the requests that change values. They use the source's
// URLs and header.
type WriteConfig struct {
	// StoreMethod is the method of the request that stores a value. Default: "PUT".
	StoreMethod string `yaml:"store_method" answers:"yes" default:"PUT"`
	// DeleteMethod is the method of the request that deletes a value. Default: "DELETE".
	DeleteMethod string `yaml:"delete_method" answers:"yes" default:"DELETE"`
	// ContentType is the content type of a value that is stored. Default:
	// "application/octet-stream".
	ContentType string `yaml:"content_type" answers:"yes" default:"application/octet-stream"`
}

func (write *WriteConfig) defaults() {
	write.StoreMethod = cmp.Or(write.StoreMethod, http.MethodPut)
	write.DeleteMethod = cmp.Or(write.DeleteMethod, http.MethodDelete)
	write.ContentType = cmp.Or(write.ContentType, "application/octet-stream")
}

// A status of 2xx means that the change is made. For a deletion, an "absent" status means this too.
// Every other 4xx status except 408 means that nothing was written. After any other status the
// outcome is unknown.

// Store sends the value.
func (s *Source) Store(ctx context.Context, key []byte, v loader.Value) error {
	code, err := s.send(ctx, s.cfg.Write.StoreMethod, key, bytes.NewReader(v.Bytes), s.cfg.Write.ContentType)
	if err != nil {
		return err
	}
	return s.outcome(code)
}

// Delete requests the removal of the key.
func (s *Source) Delete(ctx context.Context, key []byte) error {
	code, err := s.send(ctx, s.cfg.Write.DeleteMethod, key, nil, "")
	if err != nil || slices.Contains(s.cfg.Absent, code) {
		return err
	}
	return s.outcome(code)
}

func (s *Source) outcome(code int) error {
	switch {
	case code >= 200 && code < 300:
		return nil
	case code >= 400 && code < 500 && code != http.StatusRequestTimeout:
		return fmt.Errorf("%w: http origin %s: status %d", loader.ErrNotWritten, s.host, code)
	case code >= 300 && code < 400: // some servers redirect after the change
		return fmt.Errorf("http origin %s: status %d, a redirect: configure the URL that it leads to",
			s.host, code)
	}
	return fmt.Errorf("http origin %s: status %d", s.host, code)
}

// maxAnswer is how many bytes of an answer are read so that its connection can be
// reused.
const maxAnswer = 64 << 10

func (s *Source) send(
	ctx context.Context, method string, key []byte, body io.Reader, contentType string,
) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	// Nothing can have been sent before there was a connection.
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
	req, err := s.request(ctx, method, key, body)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", loader.ErrNotWritten, err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := s.client.do(req)
	if err != nil {
		if !connected.Load() {
			return 0, fmt.Errorf("%w: %w", loader.ErrNotWritten, withoutURL(s.host, err))
		}
		return 0, withoutURL(s.host, err)
	}
	defer resp.Body.Close()
	// The status decides. The rest of the answer does not matter.
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer)
	return resp.StatusCode, nil
}
