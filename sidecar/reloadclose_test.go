package sidecar

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// slowToClose is an origin whose Close waits, as that of a pool does while a server does
// not answer.
type slowToClose struct {
	*source
	closing chan string
	close   chan struct{}
}

func (slowToClose) Kind() string     { return "slow" }
func (slowToClose) Descriptors() int { return 0 }
func (o slowToClose) Open(loader.OriginOptions) (*loader.Origin, error) {
	return &loader.Origin{Source: o.source, Close: func() error {
		if o.closing != nil {
			o.closing <- o.name
			<-o.close
		}
		return nil
	}}, nil
}

// TestReloadWaitsForNoClose: an origin that is slow to close delays neither the reload, nor
// the other namespaces, nor the reader of its last load. The end of the sidecar waits for
// it.
func TestReloadWaitsForNoClose(t *testing.T) {
	testenv.ReadsClock(t, 50*time.Millisecond, "the sidecar does not end while its origins close: nothing comes")
	closing, done := make(chan string, 8), make(chan struct{})
	busy := &source{name: "busy", gate: make(chan struct{}), begun: make(chan string, 1)}
	old := func(s *source) Namespace { return Namespace{Origin: slowToClose{s, closing, done}} }
	s, err := New(Config{Node: "a", NoSocket: true, L2Size: 8 << 20, RequestTimeout: 20 * time.Second, Namespaces: map[string]Namespace{
		"one": old(&source{name: "one"}), "two": old(&source{name: "two"}), "busy": old(busy),
	}})
	testenv.Must(t, err)
	r := &reloaded{T: t, s: s}
	var got string
	var reader sync.WaitGroup
	reader.Go(func() { got = r.get("busy", "k") })
	<-busy.begun
	for len(closing) > 0 { // those that a check has opened
		<-closing
	}
	applied := make(chan error, 1)
	go func() { // ends with the reload
		_, err := s.Apply(context.Background(), Config{Node: "a", NoSocket: true, L2Size: 8 << 20, RequestTimeout: 20 * time.Second})
		applied <- err
	}()
	in := func(what string, c <-chan error) {
		t.Helper()
		select {
		case err := <-c:
			testenv.Must(t, err)
		case <-testenv.Expired():
			t.Errorf("%s waits for the end of an origin", what)
		}
	}
	in("a reload", applied)
	read := make(chan error, 1)
	go func() { reader.Wait(); read <- nil }() // ends with the reader
	close(busy.gate)
	in("a reader", read)
	if got != "busy" {
		t.Errorf("the last load: %q", got)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }() // ends with the sidecar
	for range 3 {
		<-closing
	}
	select {
	case err := <-ended:
		t.Errorf("the sidecar ends before its origins: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(done)
	in("the end", ended)
}
