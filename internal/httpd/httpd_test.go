package httpd

import (
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// pipes is a listener of connections in memory, whose time is virtual.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if nc, ok := <-p; ok {
		return nc, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// TestHTTPTimes: a connection ends in time if its header does not come, if its answer is
// not read, and if it is idle.
func TestHTTPTimes(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		metrics := prometheus.NewRegistry()
		metrics.MustRegister(collectors.NewGoCollector())
		a, err := New(Config{
			Address: "127.0.0.1:0", MaxConns: 16, Log: slog.New(slog.DiscardHandler), Metrics: metrics,
			Ready: func() (string, bool) { return "ok", true },
		})
		testenv.Must(t, err)
		defer a.gate.Close()
		conns := make(pipes)
		done := make(chan error, 1)
		go func() { done <- a.srv.Serve(conns) }()
		for _, tc := range []struct {
			name, request string
			reads         bool
			after         time.Duration
		}{
			{"half a header", "GET /livez HT", true, 5 * time.Second},
			{"nothing", "", true, 5 * time.Second},
			{"an answer that is not read", "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", false, 10 * time.Second},
			{"at rest", "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", true, 30 * time.Second},
		} {
			near, far := net.Pipe()
			conns <- far
			began := time.Now()
			go func() { _, _ = io.WriteString(near, tc.request) }()
			if !tc.reads {
				time.Sleep(tc.after + time.Second)
			}
			_ = near.SetReadDeadline(time.Now().Add(5 * time.Minute))
			b, err := io.ReadAll(near)
			took := time.Since(began)
			if late := took - tc.after; err != nil && !strings.Contains(err.Error(), "closed") || late < -time.Millisecond || late > 2*time.Second {
				t.Errorf("%s: it ends after %v, want %v: %d bytes, %v", tc.name, took, tc.after, len(b), err)
			}
			_ = near.Close()
		}
		close(conns)
		<-done
		_ = a.srv.Close()
	})
}

// crowded is a slow collector that counts how many collections run at a time.
type crowded struct{ now, most, times atomic.Int64 }

func (c *crowded) Describe(chan<- *prometheus.Desc) {}

func (c *crowded) Collect(chan<- prometheus.Metric) {
	c.times.Add(1)
	c.most.Store(max(c.most.Load(), c.now.Add(1)))
	time.Sleep(5 * time.Millisecond)
	c.now.Add(-1)
}

// TestMetricsOneByOne: concurrent requests for metrics are gathered one at a time.
func TestMetricsOneByOne(t *testing.T) {
	c := &crowded{}
	cfg := Config{Metrics: prometheus.NewRegistry()}
	cfg.Metrics.MustRegister(c)
	var s Server
	s.SetCallers(Callers{})
	pages := s.pages(&cfg, log.Default())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			w := httptest.NewRecorder()
			if pages.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil)); w.Code != http.StatusOK {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
	wg.Wait()
	if c.most.Load() != 1 || c.times.Load() != 8 {
		t.Errorf("%d gather at a time, %d did", c.most.Load(), c.times.Load())
	}
}
