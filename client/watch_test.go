package client_test

import (
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// follow is a Watch from which a test takes one event at a time; it skips heartbeats.
type follow struct {
	t    *testing.T
	pull func() (client.Event, error, bool)
}

func watch(t *testing.T, c *client.Client, o client.WatchOptions) *follow {
	pull, stop := iter.Pull2(c.Watch(testenv.Context(t), o))
	t.Cleanup(stop)
	f := &follow{t, pull}
	f.want(client.Reset, "")
	return f
}

func (f *follow) want(kind client.Kind, about string) client.Event {
	f.t.Helper()
	for {
		e, err, ok := f.pull()
		if err != nil || !ok {
			f.t.Fatalf("%v, %v; want %v", err, ok, kind)
		}
		if e.Kind == client.Beat && kind != client.Beat {
			continue
		}
		if e.Kind != kind || e.Key+e.Namespace != about {
			f.t.Fatalf("got %+v, want %v of %q", e, kind, about)
		}
		return e
	}
}

func TestWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	stop := serve(t, path)
	c := dial(t, client.Config{Socket: path})
	ctx := t.Context()
	all := watch(t, c, client.WatchOptions{All: true, Beat: 20 * time.Millisecond})
	some := watch(t, c, client.WatchOptions{Keys: []string{"a", "b"}, Beat: 20 * time.Millisecond})
	users := watch(t, c.InNamespace("users"), client.WatchOptions{Keys: []string{"a"}, Beat: 20 * time.Millisecond})
	all.want(client.Beat, "")

	other := dial(t, client.Config{Socket: path})
	for _, key := range []string{"none", "a"} {
		v, err := other.Set(ctx, key, []byte("1"), cachesidecar.SetOptions{})
		testenv.Must(t, err)
		e := all.want(client.Changed, "")
		if e.Version != v || e.Hash == 0 {
			t.Errorf("%+v, want version %d", e, v)
		}
		if key == "a" {
			if s := some.want(client.Changed, "adefault"); s.Hash != e.Hash || s.Version != v {
				t.Errorf("%+v, want %+v", s, e)
			}
		}
	}
	testenv.Must(t, testenv.ErrorOf(other.InNamespace("users").Set(ctx, "a", nil, cachesidecar.SetOptions{})))
	all.want(client.Changed, "")
	users.want(client.Changed, "ausers")
	testenv.Must(t, other.InNamespace("users").Flush(ctx, cachesidecar.FlushOptions{}))
	all.want(client.Flushed, "users")
	users.want(client.Flushed, "users")
	testenv.Must(t, other.Delete(ctx, "a", cachesidecar.DeleteOptions{}))
	all.want(client.Changed, "")
	some.want(client.Changed, "adefault") // no event of users came before it

	// After a restart come one or more errors, and then a reset.
	stop()
	client.PassMove(t, c)
	if _, err, ok := some.pull(); ok && err == nil {
		_, err, ok = some.pull() // the last heartbeat before the stop
		if !ok || err == nil {
			t.Errorf("%v, %v, want an error", err, ok)
		}
	}
	serve(t, path)
	for {
		e, err, ok := some.pull()
		if !ok {
			t.Fatal("the stream has ended")
		}
		if err == nil {
			if e.Kind != client.Reset {
				t.Errorf("got %+v, want a reset", e)
			}
			break
		}
	}
	testenv.Must(t, testenv.ErrorOf(other.Set(ctx, "b", nil, cachesidecar.SetOptions{})))
	some.want(client.Changed, "bdefault")

	testenv.Must(t, c.Close())
	for {
		e, err, ok := some.pull()
		if !ok || errors.Is(err, cachesidecar.ErrClosed) {
			break
		}
		if err != nil {
			t.Fatalf("after Close: %+v, %v", e, err)
		}
	}
}

// TestWatchTooSlow checks that a slow loop loses its position and gets a Reset.
func TestWatchTooSlow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	serve(t, path)
	c := dial(t, client.Config{Socket: path})
	f := watch(t, c, client.WatchOptions{})
	writer := dial(t, client.Config{Socket: path})
	for i := 0; i < 70_000; i += 1000 {
		keys := make([]string, 1000)
		for j := range keys {
			keys[j] = fmt.Sprint("key", i+j)
		}
		testenv.Must(t, testenv.ErrorOf(writer.DeleteMulti(t.Context(), keys, cachesidecar.DeleteOptions{})))
	}
	f.want(client.Reset, "")
	testenv.Must(t, testenv.ErrorOf(writer.Set(t.Context(), "k", nil, cachesidecar.SetOptions{})))
	f.want(client.Changed, "")
}

func TestWatchRefuses(t *testing.T) {
	c := dial(t, client.Config{})
	for _, o := range []client.WatchOptions{{Keys: make([]string, 1025)}, {Beat: -1}, {Beat: 2 * time.Hour}} {
		n := 0
		for _, err := range c.Watch(t.Context(), o) {
			if n++; !errors.Is(err, cachesidecar.ErrBadRequest) {
				t.Errorf("got %v, want ErrBadRequest", err)
			}
		}
		if n != 1 {
			t.Errorf("%d answers, want one error", n)
		}
	}
	n := 0
	for _, err := range c.InNamespace("Bad").Watch(t.Context(), client.WatchOptions{}) {
		if n++; !errors.Is(err, cachesidecar.ErrBadRequest) || n > 1 {
			t.Fatalf("a bad namespace: %v, want ErrBadRequest once", err)
		}
	}
}
