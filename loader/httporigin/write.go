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
	StoreMethod string `yaml:"store_method"`
	// DeleteMethod is the method of the request that deletes a value. Default: "DELETE".
	DeleteMethod string `yaml:"delete_method"`
	// ContentType is the content type of a value that is stored. Default:
	// "application/octet-stream".
	ContentType string `yaml:"content_type"`
}

// Writer sends the requests. A status of 2xx means that the change is made. For a
// deletion, an "absent" status means this too. Every other 4xx status except 408 means
// that nothing was written. After any other status the outcome is unknown.
type Writer struct {
	source *Source
	cfg    WriteConfig
}

// NewWriter validates the configuration.
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

// Delete requests the removal of the key.
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
	case code >= 300 && code < 400: // some servers redirect after the change
		return fmt.Errorf("http origin %s: status %d, a redirect: configure the URL that it leads to",
			w.source.host, code)
	}
	return fmt.Errorf("http origin %s: status %d", w.source.host, code)
}

// maxAnswer is how many bytes of an answer are read so that its connection can be
// reused.
const maxAnswer = 64 << 10

func (w *Writer) send(
	ctx context.Context, method string, key []byte, body io.Reader, contentType string,
) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, w.source.cfg.Timeout)
	defer cancel()
	// Nothing can have been sent before there was a connection.
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
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
	// The status decides. The rest of the answer does not matter.
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer)
	return resp.StatusCode, nil
}
