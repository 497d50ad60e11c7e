package httporigin

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// TestMoved checks that requests leave the connections that they have: when those are old, for the host's
// name may lead elsewhere by then, and at once when the server answers that another one is meant.
func TestMoved(t *testing.T) {
	var made, open atomic.Int64
	var status atomic.Int64
	status.Store(http.StatusOK)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(int(status.Swap(http.StatusOK)))
		fmt.Fprint(w, "x")
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			made.Add(1)
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}
	server.Start()
	defer server.Close()
	s := source(t, Config{URL: server.URL + "/{key}"})
	load := func() {
		testenv.Should(t, testenv.ErrorOf(s.Load(t.Context(), []byte("k"))))
	}
	load()
	load()
	if n := made.Load(); n != 1 {
		t.Errorf("%d connections for two requests", n)
	}
	status.Store(http.StatusMisdirectedRequest)
	if _, err := s.Load(t.Context(), []byte("k")); err == nil {
		t.Error("a misdirected request has a value")
	}
	load()
	if n := made.Load(); n != 2 {
		t.Errorf("%d connections after a misdirected request", n)
	}
	s.client.term, s.client.terms.MaxAge = loader.Term{}, 1 // all are old
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(load)
	}
	wg.Wait()
	s.client.terms.MaxAge = time.Hour
	load()
	testenv.Eventually(t, "the old connections to end", func() bool { return open.Load() <= 1 && made.Load() > 2 })

	late, _ := s.client.get() // by a request that goes on after the term has ended
	s.client.term = loader.Term{}
	load()
	before := made.Load()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	testenv.Must(t, err)
	resp, err := s.client.by(late, req)
	testenv.Must(t, err)
	if _, err := io.ReadAll(resp.Body); err != nil { // else it would not become idle
		t.Error(err)
	}
	_ = resp.Body.Close()
	if made.Load() == before {
		t.Error("the request was to make a connection")
	}
	testenv.Eventually(t, "the connection of a late request to end", func() bool { return open.Load() <= 1 })
}
