package member

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// node owns every second key that it is asked about.
type node struct {
	mu     sync.Mutex
	set    map[string][]byte
	gets   map[string]int
	change func(value []byte) ([]byte, error) // what Get returns
	alone  bool
}

func newNode() *node {
	return &node{set: map[string][]byte{}, gets: map[string]int{}, change: func(v []byte) ([]byte, error) { return v, nil }}
}

func (n *node) Elsewhere(_ context.Context, key string) (bool, error) {
	if key == "" {
		return false, errors.New("no key")
	}
	return !n.alone && key[len(key)-1]%2 == 1, nil
}

func (n *node) Set(_ context.Context, key string, value []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.set[key] = value
	return nil
}

func (n *node) Get(_ context.Context, key string) ([]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gets[key]++
	return n.change(n.set[key])
}

var config = Config{Keys: 50, KeySize: 16, ValueSize: 10, Workers: 4}

func TestOrders(t *testing.T) {
	n := newNode()
	m, err := New(t.Context(), config, n)
	if err != nil {
		t.Fatal(err)
	}
	if len(n.set) != config.Keys {
		t.Errorf("got %d keys, want %d", len(n.set), config.Keys)
	}
	for key := range n.set {
		if key[len(key)-1]%2 == 0 || len(key) != config.KeySize {
			t.Errorf("%q is among the keys of another node", key)
		}
	}
	orders, err := json.Marshal(Order{WarmUp: time.Millisecond, Turn: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := m.Serve(t.Context(), strings.NewReader(string(orders)+"\n"+string(orders)+"\n"), &out); err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(&out)
	var r Ready
	if err := d.Decode(&r); err != nil || !r.Ready {
		t.Errorf("got %+v, error %v, want it ready", r, err)
	}
	for range 2 {
		var a Answer
		if err := d.Decode(&a); err != nil || a.Error != "" || a.Requests == 0 || a.Hits != a.Requests {
			t.Fatalf("got %+v, error %v, want hits alone", a, err)
		}
		if n := hdrhistogram.Import(a.Latency).TotalCount(); n != a.Requests {
			t.Errorf("got %d latencies of %d requests", n, a.Requests)
		}
	}
	if err := d.Decode(&r); !errors.Is(err, io.EOF) {
		t.Errorf("more than an answer an order: %v", err)
	}
	// A worker cycles through its keys, so their counts differ little.
	least, most := 1<<30, 0
	for _, w := range m.workers {
		for _, key := range w.keys {
			least, most = min(least, n.gets[key]), max(most, n.gets[key])
		}
		if most-least > 2 && len(w.keys) > 0 {
			t.Errorf("keys of one worker were asked for %d to %d times", least, most)
		}
		least, most = 1<<30, 0
	}
}

func TestErrors(t *testing.T) {
	broken := func(v []byte) ([]byte, error) { return nil, errors.New("the owner is gone") }
	for _, c := range []struct {
		name   string
		change func(*node)
		want   string
	}{
		{"nobody else is there", func(n *node) { n.alone = true }, "only 0 of 500 keys belong to another node"},
		{"another value", func(n *node) { n.change = func([]byte) ([]byte, error) { return []byte("0123456789"), nil } }, "10 bytes that are not what was set"},
		{"no value", func(n *node) { n.change = broken }, "the owner is gone"},
	} {
		n := newNode()
		c.change(n)
		if _, err := New(t.Context(), config, n); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want one with %q", c.name, err, c.want)
		}
	}
	n := newNode()
	m, err := New(t.Context(), config, n)
	if err != nil {
		t.Fatal(err)
	}
	n.change = broken
	if a := m.run(t.Context(), Order{Turn: time.Second}); !strings.Contains(a.Error, "the owner is gone") {
		t.Errorf("got %+v, want what ended it", a)
	}
	n.change = func([]byte) ([]byte, error) { return nil, nil }
	testenv.Eventually(t, "requests within a turn", func() bool {
		a := m.run(t.Context(), Order{Turn: 5 * time.Millisecond})
		if a.Hits != 0 {
			t.Fatalf("got %d hits of %d requests without a value, want none", a.Hits, a.Requests)
		}
		return a.Requests > 0
	})
}
