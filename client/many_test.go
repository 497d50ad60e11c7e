package client_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// someRows is an origin that has the keys r0, r1…, and fails for others.
type someRows struct{}

func (someRows) Load(_ context.Context, key []byte) (loader.Value, error) {
	if key[0] == 'r' {
		return loader.Value{Bytes: key}, nil
	}
	return loader.Value{}, errors.New("down")
}

// batched is what has calls of several keys: the client and the embedded sidecar.
type batched struct {
	get func(keys ...string) (map[string]cachesidecar.Item, error)
	del func(keys ...string) (int, error)
}

// TestBatchKeepsWhatIsThere has some keys of a call fail: each has its error, and the values of the others are there.
func TestBatchKeepsWhatIsThere(t *testing.T) {
	ctx, path := t.Context(), t.TempDir()+"/s"
	s, _ := run(t, sidecar.Config{Socket: path, L2Size: 64 << 20, Namespaces: map[string]sidecar.Namespace{
		"rows": {Origin: loader.Custom{Source: someRows{}}},
	}})
	all := map[string]batched{"embedded": {
		func(keys ...string) (map[string]cachesidecar.Item, error) {
			return s.GetMulti(ctx, "rows", keys, cachesidecar.GetOptions{})
		},
		func(keys ...string) (int, error) {
			return s.DeleteMulti(ctx, "rows", keys, cachesidecar.DeleteOptions{})
		},
	}}
	for name, cfg := range map[string]client.Config{
		"socket": {NoSharedMemory: true}, "shared memory": {}, "near cache": {NearCache: client.NearCache{Bytes: 4 << 20}},
	} {
		cfg.Socket, cfg.Namespace = path, "rows"
		c, err := client.Dial(ctx, cfg)
		testenv.Must(t, err)
		defer c.Close()
		all[name] = batched{
			func(keys ...string) (map[string]cachesidecar.Item, error) {
				return c.GetMulti(ctx, keys, cachesidecar.GetOptions{})
			},
			func(keys ...string) (int, error) { return c.DeleteMulti(ctx, keys, cachesidecar.DeleteOptions{}) },
		}
	}
	long, huge := strings.Repeat("l", 1025), strings.Repeat("h", 40<<20)
	var many []string
	for i := range 2000 {
		many = append(many, fmt.Sprint("r", i))
	}
	for name, c := range all {
		for range 3 { // near by then, or in shared memory
			found, err := c.get("r1", "down", "r2", "", "r1", long, "r3", huge)
			var b *cachesidecar.BatchError
			if len(found) != 3 || string(found["r2"].Value) != "r2" || !errors.As(err, &b) {
				t.Fatalf("%s: %d found, %v", name, len(found), err)
			}
			if !errors.Is(b.Errors["down"], cachesidecar.ErrOrigin) || !errors.Is(b.Errors[long], cachesidecar.ErrBadRequest) ||
				!errors.Is(b.Errors[""], cachesidecar.ErrBadRequest) || len(b.Errors) != 4 || len(b.Keys) != 4 {
				t.Errorf("%s: %v", name, b.Errors)
			}
			if !errors.Is(err, cachesidecar.ErrOrigin) || !errors.Is(err, cachesidecar.ErrBadRequest) ||
				errors.Is(err, cachesidecar.ErrBusy) || len(err.Error()) > 300 {
				t.Errorf("%s: %v", name, err)
			}
		}
		if found, err := c.get(append([]string{"down"}, many...)...); len(found) != 2000 || !errors.Is(err, cachesidecar.ErrOrigin) {
			t.Errorf("%s, many: %d found, %v", name, len(found), err)
		}
		if n, err := c.del(append([]string{"", "r1", long}, many[1000:]...)...); n != 1001 || !errors.Is(err, cachesidecar.ErrBadRequest) {
			t.Errorf("%s: %d deleted, %v", name, n, err)
		}
	}
}

// TestClosedAnswersNothing calls a client that is closed: no call answers from this process.
func TestClosedAnswersNothing(t *testing.T) {
	path := t.TempDir() + "/s"
	serve(t, path)
	for name, cfg := range map[string]client.Config{
		"socket": {NoSharedMemory: true}, "shared memory": {}, "near cache": {NearCache: client.NearCache{Bytes: 4 << 20}},
		"near cache alone": {NoSharedMemory: true, NearCache: client.NearCache{Bytes: 4 << 20}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.Socket = path
			c, err := client.Dial(t.Context(), cfg)
			testenv.Must(t, err)
			ctx, o := context.Background(), cachesidecar.GetOptions{}
			testenv.Must(t, testenv.ErrorOf(c.Set(ctx, "k", []byte("value"), cachesidecar.SetOptions{})))
			testenv.Eventually(t, "a value that is near", func() bool {
				it, err := c.Get(ctx, "k", o)
				return err == nil && (it.Source == "near" || it.Source == "shared" || name == "socket")
			})
			reading := make(chan struct{})
			go func() { // ends with the client
				defer close(reading)
				for err := error(nil); !errors.Is(err, cachesidecar.ErrClosed); {
					_, err = c.Get(ctx, "k", o)
				}
			}()
			view := c.InNamespace("default")
			_, _ = view.Get(ctx, "k", o)
			testenv.Should(t, c.Close())
			for what, call := range map[string]func(c *client.Client) error{
				"Get":      func(c *client.Client) error { return testenv.ErrorOf(c.Get(ctx, "k", o)) },
				"GetMulti": func(c *client.Client) error { return testenv.ErrorOf(c.GetMulti(ctx, []string{"k", "l"}, o)) },
				"DeleteMulti": func(c *client.Client) error {
					return testenv.ErrorOf(c.DeleteMulti(ctx, []string{"k"}, cachesidecar.DeleteOptions{}))
				},
				"Set":    func(c *client.Client) error { return testenv.ErrorOf(c.Set(ctx, "k", nil, cachesidecar.SetOptions{})) },
				"Delete": func(c *client.Client) error { return c.Delete(ctx, "k", cachesidecar.DeleteOptions{}) },
				"Lease":  func(c *client.Client) error { _, _, err := c.Lease(ctx, "k", o); return err },
				"GetOrLoad": func(c *client.Client) error {
					return testenv.ErrorOf(c.GetOrLoad(ctx, "k", func(context.Context, string) ([]byte, error) { return nil, nil }, client.LoadOptions{}))
				},
				"GetAndTouch": func(c *client.Client) error { return testenv.ErrorOf(c.GetAndTouch(ctx, "k", time.Second)) },
				"Watch": func(c *client.Client) (err error) {
					for _, err = range c.Watch(ctx, client.WatchOptions{}) {
					}
					return err
				},
			} {
				for _, c := range []*client.Client{c, view} {
					if err := call(c); !errors.Is(err, cachesidecar.ErrClosed) {
						t.Errorf("%s after Close: %v", what, err)
					}
				}
			}
			<-reading
		})
	}
}
