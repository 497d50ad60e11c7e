package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestLengthyMillionNamespaces uses a million names of namespaces on one connection. The
// connection's share of the names is served, the others are refused with the reason, and
// a name that becomes empty makes room.
func TestLengthyMillionNamespaces(t *testing.T) {
	testenv.Takes(t, 10*time.Second)
	const names, limit = 1_000_000, 193 // 192 are three quarters of 255
	p := runSidecar(t)
	check := p.bystander() // in "default", which is one more
	c := p.dial()
	first := c.id + 1
	failed := make(chan error, 1)
	go func() { // ends when all is written, or with the connection
		var b []byte
		for i := range names {
			q := setRequest("k", "v")
			q.ID, q.Namespace = first+uint64(i), fmt.Appendf(nil, "n%d", i)
			if b = wire.AppendRequest(b, q); len(b) > 32<<10 || i == names-1 {
				if _, err := c.nc.Write(b); err != nil {
					failed <- err
					return
				}
				b = b[:0]
			}
		}
		failed <- nil
	}()
	var stored []string
	refused := 0
	for i := range names {
		if i%10_000 == 0 {
			_ = c.nc.SetDeadline(testenv.Deadline())
		}
		r, err := c.read(wire.OpSet)
		testenv.Must(t, err)
		name := fmt.Sprintf("n%d", r.ID-first)
		switch {
		case r.Status == wire.OK:
			stored = append(stored, name)
		case r.Status == wire.Busy && strings.Contains(string(r.Message), "this connection 192: names that max_namespaces leaves"):
			refused++
		default:
			t.Fatalf("%s: %v %q", name, r.Status, r.Message)
		}
	}
	c.id += names
	testenv.Must(t, <-failed)
	if len(stored) != limit-1 || refused != names-len(stored) {
		t.Errorf("%d names are served and %d refused, want %d and the rest", len(stored), refused, limit-1)
	}
	set := func(name, value string) wire.Reply {
		q := setRequest("k", value)
		q.Namespace = []byte(name)
		return c.call(q)
	}
	get := func(name string) wire.Reply {
		q := getRequest("k")
		q.Namespace = []byte(name)
		return c.call(q)
	}
	// Names in use still work; other names read as empty.
	for _, name := range stored {
		if r := set(name, name); r.Status != wire.OK {
			t.Fatalf("SET in %s, which is in use: %v %s", name, r.Status, r.Message)
		}
	}
	for _, name := range stored {
		if r := get(name); string(r.Value) != name {
			t.Errorf("GET in %s: %v %q", name, r.Status, r.Value)
		}
	}
	if r := get("n999999"); r.Status != wire.Miss {
		t.Errorf("GET in a name that has no slot: %v", r.Status)
	}
	if n := len(c.stats().Namespaces); n != limit {
		t.Errorf("%d namespaces are in use, want %d", n, limit)
	}
	check()
	// A slot whose keys are deleted can be reused; slots with keys are kept.
	gone := stored[:20]
	for i, name := range gone {
		if r := c.must(&wire.Request{Op: wire.OpDelete, Namespace: []byte(name), Keys: [][]byte{[]byte("k")}}); r.Items[0].Status != wire.OK {
			t.Fatalf("DELETE in %s: %v", name, r.Items[0].Status)
		}
		testenv.Succeeds(t, "a slot to be free", func() error { return setError(set(fmt.Sprintf("new%d", i), "x")) })
		if r := set("one-more", "x"); r.Status != wire.Busy {
			t.Errorf("after %d slots were freed and taken, one more is %v", i+1, r.Status)
		}
	}
	for i, name := range gone {
		if r := get(name); r.Status != wire.Miss {
			t.Errorf("%s has no key and is %v %q", name, r.Status, r.Value)
		}
		if r := get(fmt.Sprintf("new%d", i)); string(r.Value) != "x" {
			t.Errorf("new%d: %v %q", i, r.Status, r.Value)
		}
	}
	for _, name := range stored[len(gone):] {
		if r := get(name); string(r.Value) != name {
			t.Errorf("%s lost its key: %v %q", name, r.Status, r.Value)
		}
	}
}

func setError(r wire.Reply) error {
	if r.Status != wire.OK {
		return fmt.Errorf("%v %s", r.Status, r.Message)
	}
	return nil
}
