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

// WriteConfig describes the requests that change values, at the source's URLs
// and with its header.
type WriteConfig struct {
	StoreMethod  string `yaml:"store_method"`  // default PUT
	DeleteMethod string `yaml:"delete_method"` // default DELETE
	ContentType  string `yaml:"content_type"`  // of the value; default application/octet-stream
}

// Writer sends them. A status of 2xx says that it is done; so does one that says
// "absent" for a key that is to be deleted. All others of 4xx but 408 say that
// nothing was written.
type Writer struct {
	source *Source
	cfg    WriteConfig
}

// NewWriter checks the configuration.
func (s *Source) NewWriter(cfg WriteConfig) (*Writer, error) {
	cfg.StoreMethod = cmp.Or(cfg.StoreMethod, http.MethodPut)
	cfg.DeleteMethod = cmp.Or(cfg.DeleteMethod, http.MethodDelete)
	cfg.ContentType = cmp.Or(cfg.ContentType, "application/octet-stream")
	for _, method := range []string{cfg.StoreMethod, cfg.DeleteMethod} {
		if _, err := http.NewRequest(method, s.before, nil); err != nil {
			return nil, fmt.Errorf("http origin: method %q is not a method", method)
		}
	}
	return &Writer{s, cfg}, nil
}

// Store sends the value.
func (w *Writer) Store(ctx context.Context, key []byte, v loader.Value) error {
	code, err := w.send(ctx, w.cfg.StoreMethod, key, bytes.NewReader(v.Bytes), w.cfg.ContentType)
	if err != nil {
		return err
	}
	return w.outcome(code)
}

// Delete asks for the key to be removed.
func (w *Writer) Delete(ctx context.Context, key []byte) error {
	code, err := w.send(ctx, w.cfg.DeleteMethod, key, nil, "")
	if err != nil || slices.Contains(w.source.cfg.Absent, code) {
		return err
	}
	return w.outcome(code)
}

func (w *Writer) outcome(code int) error {
	switch {
	case code >= 200 && code < 300:
		return nil
	case code >= 400 && code < 500 && code != http.StatusRequestTimeout:
		return fmt.Errorf("%w: http origin %s: status %d", loader.ErrNotWritten, w.source.host, code)
	case code >= 300 && code < 400: // which some servers answer once it is done
		return fmt.Errorf("http origin %s: status %d, a redirect: configure the URL that it leads to", w.source.host, code)
	}
	return fmt.Errorf("http origin %s: status %d", w.source.host, code)
}

// maxAnswer is how much of an answer is read, so that its connection can be used
// again.
const maxAnswer = 64 << 10

func (w *Writer) send(ctx context.Context, method string, key []byte, body io.Reader, contentType string) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, w.source.cfg.Timeout)
	defer cancel()
	// Without a connection nothing can have been sent.
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	req, err := w.source.request(ctx, method, key, body)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", loader.ErrNotWritten, err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := w.source.client.Do(req)
	if err != nil {
		if !connected.Load() {
			return 0, fmt.Errorf("%w: %w", loader.ErrNotWritten, failed(w.source.host, err))
		}
		return 0, failed(w.source.host, err)
	}
	defer resp.Body.Close()
	// The status is the answer, whatever becomes of the rest.
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer)
	return resp.StatusCode, nil
}
