package hosts

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// TestVirtualCopyEndsWithItsValue checks that a copy ends with its value, even if it was made in
// the value's last millisecond. The owner's clock decides where that whole millisecond
// ends.
func TestVirtualCopyEndsWithItsValue(t *testing.T) {
	inQuietWorld(t, 3, func(t *testing.T, w *world) {
		owner, reader := w.nodes[0], w.nodes[1]
		ctx := context.Background()
		w.net.SetDelay(100*time.Microsecond, 100*time.Microsecond)
		key, _ := keyOwnedBy(owner, "short")
		_, _ = reader.s.Get(ctx, "default", string(key), cachesidecar.GetOptions{}) // makes a connection
		time.Sleep(time.Millisecond - time.Duration(owner.clock.Read().Boot)%time.Millisecond)
		const ttl = 100 * time.Millisecond
		if _, err := owner.s.Set(ctx, "default", string(key), []byte("v"), cachesidecar.SetOptions{TTL: ttl}); err != nil {
			t.Error(err)
		}
		end := time.Now().Add(ttl)
		time.Sleep(ttl - 500*time.Microsecond)
		if _, err := reader.s.Get(ctx, "default", string(key), cachesidecar.GetOptions{}); err != nil {
			t.Errorf("before its end: %v", err)
		}
		for ; time.Since(end) < 3*time.Millisecond; time.Sleep(100 * time.Microsecond) {
			if v, err := reader.s.Get(ctx, "default", string(key), cachesidecar.GetOptions{}); err == nil && !time.Now().Before(end) {
				t.Errorf("%v after its end it is %q", time.Since(end), v.Value)
			}
		}
	})
}

// TestEmbeddedValueIsOwn checks that a value belongs to the caller of the embedding API:
// what the caller does to it is seen by no later read, whichever tier has answered.
func TestEmbeddedValueIsOwn(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	a, key, _ := copyHits(t)
	name := string(key)
	reads := map[string]func() []byte{
		"Get": func() []byte {
			it, err := a.Get(t.Context(), "default", name, cachesidecar.GetOptions{})
			testenv.Must(t, err)
			return it.Value
		},
		"GetMulti": func() []byte {
			items, err := a.GetMulti(t.Context(), "default", []string{name}, cachesidecar.GetOptions{})
			testenv.Must(t, err)
			return items[name].Value
		},
		"fresh Get": func() []byte {
			it, err := a.Get(t.Context(), "default", name, cachesidecar.GetOptions{Fresh: true})
			testenv.Must(t, err)
			a.engine.L1.Wait()
			return it.Value
		},
	}
	want := bytes.Clone(reads["Get"]())
	for first, read := range reads {
		v := read()
		for i := range v {
			v[i] ^= 0xff
		}
		for second, again := range reads {
			if got := again(); !bytes.Equal(got, want) {
				t.Errorf("%s after the value of a %s was changed: %q, want %q", second, first, got, want)
			}
		}
		for i := range v { // as it was, for the next
			v[i] ^= 0xff
		}
	}
}

// TestEmbeddedLoadIsOwn checks that callers who wait for the same load get bytes of their
// own.
func TestEmbeddedLoadIsOwn(t *testing.T) {
	calls, goOn := make(chan struct{}, 1), make(chan struct{})
	source := loader.SourceFunc(func(context.Context, []byte) (loader.Value, error) {
		calls <- struct{}{}
		<-goOn
		return loader.Value{Bytes: []byte("value")}, nil
	})
	s := start(t, Config{Namespaces: map[string]Namespace{"n": {Origin: own(source)}}})
	values := make(chan []byte, 2)
	for range 2 {
		go func() { // ends with its Get
			it, err := s.Get(context.Background(), "n", "k", cachesidecar.GetOptions{})
			if err != nil {
				t.Error(err)
			}
			values <- it.Value
		}()
	}
	<-calls
	testenv.Eventually(t, "both to wait", func() bool { return s.engine.Namespaces.Stats()[1].Loads.Waiting == 2 })
	close(goOn)
	first, second := <-values, <-values
	if first[0] = 'x'; string(second) != "value" {
		t.Errorf("the value of one caller is changed by another: %q", second)
	}
}
