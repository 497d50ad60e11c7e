package client_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/shm"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// sharing returns a client that has the sidecar's shared memory.
func sharing(t testing.TB, cfg client.Config) *client.Client {
	t.Helper()
	if !shm.Supported {
		t.Skip("shared memory needs Linux")
	}
	c := dialAny(t, cfg)
	testenv.Eventually(t, "the attachment", func() bool { return c.SharedStats().Attached })
	return c
}

// warm reads a key until it comes from the shared memory.
func warm(t testing.TB, c *client.Client, key string) (it cachesidecar.Item) {
	t.Helper()
	testenv.Eventually(t, key+" in the shared memory", func() bool {
		var err error
		if it, err = c.Get(context.Background(), key, cachesidecar.GetOptions{}); err != nil {
			t.Fatal(err)
		}
		return it.Source == "shared"
	})
	return it
}

func TestSharedHit(t *testing.T) {
	const over = 25 * time.Millisecond
	testenv.ReadsClock(t, 25*time.Millisecond, "a value is not served once its time to live is over")
	c := sharing(t, client.Config{})
	ctx := t.Context()
	version, err := c.Set(ctx, "k", []byte("one"), cachesidecar.SetOptions{Flags: 7, TTL: time.Hour})
	testenv.Must(t, err)
	it := warm(t, c, "k")
	if string(it.Value) != "one" || it.Flags != 7 || it.Version != version || it.TTL < 59*time.Minute || it.TTL > time.Hour {
		t.Errorf("%+v", it)
	}
	if it, err := c.Get(ctx, "k", cachesidecar.GetOptions{Fresh: true}); err != nil || it.Source != "l2" {
		t.Errorf("fresh: %+v, %v", it, err)
	}
	for name, change := range map[string]func() error{
		"set": func() error { _, err := c.Set(ctx, "k", []byte("two"), cachesidecar.SetOptions{}); return err },
		"touch": func() error {
			err := c.Touch(ctx, "k", cachesidecar.TouchOptions{TTL: over - 5*time.Millisecond})
			time.Sleep(over)
			return err
		},
		"delete": func() error { return c.Delete(ctx, "k", cachesidecar.DeleteOptions{}) },
		"flush":  func() error { return c.Flush(ctx, cachesidecar.FlushOptions{}) },
	} {
		t.Run(name, func(t *testing.T) {
			testenv.Must(t, testenv.ErrorOf(c.Set(ctx, "k", []byte("one"), cachesidecar.SetOptions{})))
			warm(t, c, "k")
			testenv.Must(t, change())
			it, err := c.Get(ctx, "k", cachesidecar.GetOptions{})
			if name == "set" && (err != nil || string(it.Value) != "two") {
				t.Errorf("%s, %v", it.Value, err)
			}
			if name != "set" && !errors.Is(err, cachesidecar.ErrNotFound) {
				t.Errorf("%s, %v", it.Value, err)
			}
		})
	}
}

// blocked is an origin that answers once it is closed, and tells of each load.
type blocked struct{ asked, open chan struct{} }

func (b blocked) Load(ctx context.Context, _ []byte) (v loader.Value, err error) {
	select {
	case b.asked <- struct{}{}:
	default:
	}
	select {
	case <-b.open:
		return v, loader.ErrAbsent
	case <-ctx.Done():
		return v, ctx.Err()
	}
}

// A read that waits keeps no other one from the shared memory: only a write does.
func TestSharedBesideAReadThatWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	b := blocked{make(chan struct{}, 1), make(chan struct{})}
	serveWith(t, sidecar.Config{Socket: path, L2Size: 64 << 20, Namespaces: map[string]sidecar.Namespace{"default": {
		Origin: loader.Custom{Source: b},
	}}})
	c := sharing(t, client.Config{Socket: path})
	testenv.Must(t, testenv.ErrorOf(c.Set(t.Context(), "k", []byte("one"), cachesidecar.SetOptions{})))
	warm(t, c, "k")
	waits := make(chan error, 1)
	go func() {
		_, err := c.GetMulti(t.Context(), []string{"k", "none"}, cachesidecar.GetOptions{Fresh: true})
		waits <- err
	}()
	<-b.asked
	if it, err := c.Get(t.Context(), "k", cachesidecar.GetOptions{}); err != nil || it.Source != "shared" {
		t.Errorf("%s from %s, %v", it.Value, it.Source, err)
	}
	close(b.open)
	testenv.Should(t, <-waits)
}

// A process that starts now has hits at once, also with GetMulti, and in views of other
// namespaces.
func TestSharedByAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	serve(t, path)
	one := sharing(t, client.Config{Socket: path})
	other := one.InNamespace("others")
	for _, c := range []*client.Client{one, other} {
		for i := range 10 {
			key := fmt.Sprint("k", i)
			testenv.Must(t, testenv.ErrorOf(c.Set(t.Context(), key, []byte(key), cachesidecar.SetOptions{})))
			warm(t, c, key)
		}
	}
	late := sharing(t, client.Config{Socket: path})
	for _, c := range []*client.Client{late, late.InNamespace("others")} {
		for _, key := range []string{"k1", "k2", "k9"} {
			warm(t, c, key) // one read, unless it is kept waiting in the middle
		}
		found, err := c.GetMulti(t.Context(), []string{"k1", "k2", "none", "k9"}, cachesidecar.GetOptions{})
		if err != nil || len(found) != 3 {
			t.Fatal(found, err)
		}
		for key, it := range found {
			if string(it.Value) != key {
				t.Errorf("%s: %+v", key, it)
			}
		}
	}
}

// Without the setting, or against the client's will, reads go over the socket.
func TestNotShared(t *testing.T) {
	if !shm.Supported {
		t.Skip("shared memory needs Linux")
	}
	no := false
	for name, cfg := range map[string]sidecar.Config{
		"off":     {SharedSize: sidecar.Off},
		"setting": {Namespaces: map[string]sidecar.Namespace{"default": {Shared: &no}}},
		"client":  {},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			cfg.Socket, cfg.L2Size = path, 64<<20
			serveWith(t, cfg)
			c := dialAny(t, client.Config{Socket: path, NoSharedMemory: name == "client"})
			if name == "setting" {
				others := c.InNamespace("others")
				if _, err := others.Set(t.Context(), "k", []byte("one"), cachesidecar.SetOptions{}); err != nil {
					t.Fatal(err)
				}
				warm(t, others, "k") // so the memory is there, and serves
			}
			testenv.Must(t, testenv.ErrorOf(c.Set(t.Context(), "k", []byte("one"), cachesidecar.SetOptions{})))
			for range 10 {
				if it, err := c.Get(t.Context(), "k", cachesidecar.GetOptions{}); err != nil || it.Source != "l2" {
					t.Fatal(it, err)
				}
			}
		})
	}
}

// A sidecar that is started again has another region; the client finds it.
func TestSharedRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	stop := serve(t, path)
	c := sharing(t, client.Config{Socket: path})
	testenv.Must(t, testenv.ErrorOf(c.Set(t.Context(), "k", []byte("one"), cachesidecar.SetOptions{})))
	warm(t, c, "k")
	stop()
	client.PassMove(t, c)
	if it, err := c.Get(t.Context(), "k", cachesidecar.GetOptions{}); err == nil {
		t.Fatalf("without a sidecar: %+v", it)
	}
	serve(t, path)
	testenv.Eventually(t, "a write to the next sidecar", func() bool { // there is a pause after a failed attempt
		_, err := c.Set(t.Context(), "k", []byte("two"), cachesidecar.SetOptions{})
		return err == nil
	})
	testenv.Eventually(t, "the attachment", func() bool { return c.SharedStats().Attached })
	if it := warm(t, c, "k"); string(it.Value) != "two" || c.SharedStats().Regions != 2 {
		t.Fatalf("%+v, %+v", it, c.SharedStats())
	}
}

// Other rules of access end the region of this user, and the client asks for another one, over
// the connections that it has. A reload of the same rules changes nothing.
func TestSharedReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	cfg := sidecar.Config{Socket: path, Access: map[string]sidecar.Grants{"one": {Read: []string{"anyone"}}}}
	s, _ := run(t, cfg)
	c := sharing(t, client.Config{Socket: path})
	testenv.Must(t, testenv.ErrorOf(c.Set(t.Context(), "k", []byte("one"), cachesidecar.SetOptions{})))
	warm(t, c, "k")
	for _, tc := range []struct {
		name string
		want int64
	}{{"one", 1}, {"two", 2}} {
		cfg.Access = map[string]sidecar.Grants{tc.name: {Read: []string{"anyone"}}}
		testenv.Must(t, testenv.ErrorOf(s.Apply(t.Context(), cfg)))
		warm(t, c, "k")
		if n := c.SharedStats().Regions; n != tc.want {
			t.Errorf("%s: %d regions so far, want %d", tc.name, n, tc.want)
		}
	}
}

func BenchmarkSharedHit(b *testing.B) {
	c := sharing(b, client.Config{})
	if _, err := c.Set(b.Context(), "user:1234567890", make([]byte, 100), cachesidecar.SetOptions{}); err != nil {
		b.Fatal(err)
	}
	warm(b, c, "user:1234567890")
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Get(ctx, "user:1234567890", cachesidecar.GetOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

// A HELLO that names another process ends the use of the region, before an answer of that
// connection is delivered: the process before may have been killed, and its region says so to
// nobody. Here its connections and its region live on, so that only HELLO can tell.
func TestSharedEndsWithAnotherEpoch(t *testing.T) {
	testenv.Takes(t, 3*time.Second)
	doors := map[string]func(t *testing.T, c *client.Client){
		"another connection": func(t *testing.T, c *client.Client) {
			for i := range 64 { // each key has one of eight connections
				it, err := c.Get(t.Context(), fmt.Sprint("asked", i), cachesidecar.GetOptions{})
				testenv.Must(t, err)
				if string(it.Value) == "new" {
					return
				}
			}
			t.Fatal("no connection to the next sidecar")
		},
		"watch": func(t *testing.T, c *client.Client) {
			for _, err := range c.Watch(t.Context(), client.WatchOptions{}) {
				testenv.Must(t, err)
				return
			}
		},
	}
	for door, hear := range doors {
		t.Run(door, func(t *testing.T) {
			dir := t.TempDir()
			socket := filepath.Join(dir, "s")
			for _, name := range []string{"old", "new"} {
				serve(t, filepath.Join(dir, name))
				one := dialAny(t, client.Config{Socket: filepath.Join(dir, name), NoSharedMemory: true})
				for i := range 64 {
					_, err := one.Set(t.Context(), fmt.Sprint("asked", i), []byte(name), cachesidecar.SetOptions{})
					testenv.Must(t, err)
				}
				testenv.Must(t, testenv.ErrorOf(one.Set(t.Context(), "k", []byte(name), cachesidecar.SetOptions{})))
			}
			testenv.Must(t, os.Symlink("old", socket))
			c := sharing(t, client.Config{Socket: socket, Conns: 8})
			warm(t, c, "k")
			testenv.Must(t, errors.Join(os.Remove(socket), os.Symlink("new", socket)))
			hear(t, c)
			it, err := c.Get(t.Context(), "k", cachesidecar.GetOptions{})
			if err != nil || string(it.Value) == "old" && it.Source == "shared" {
				t.Fatalf("%s from %s, %v", it.Value, it.Source, err)
			}
			testenv.Eventually(t, "the next region", func() bool { return c.SharedStats().Regions == 2 })
		})
	}
}
