package client_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// Connect to the sidecar on this host. Without a Socket the client looks in the usual
// places. One Client serves a whole process.
func ExampleDial() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	socket := startSidecar(ctx) // in production: "cachesidecar run" on the host

	c, err := client.Dial(ctx, client.Config{Socket: socket, Name: "shop", DialTimeout: time.Minute})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	fmt.Println(c.Ping(ctx))

	_, err = client.Dial(ctx, client.Config{Socket: socket + ".none"})
	fmt.Println(errors.Is(err, cachesidecar.ErrUnavailable))
	// Output:
	// <nil>
	// true
}

// Store a value and read it. A key without a value is no failure: it is ErrNotFound.
func Example() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	c := dialSidecar(ctx, client.Config{})
	defer c.Close()

	_, err := c.Set(ctx, "user:42", []byte("Ada"), cachesidecar.SetOptions{TTL: time.Minute})
	if err != nil {
		fmt.Println(err)
	}
	item, err := c.Get(ctx, "user:42", cachesidecar.GetOptions{})
	fmt.Printf("%s from %s, %v\n", item.Value, item.Source, err)

	_, err = c.Get(ctx, "user:43", cachesidecar.GetOptions{})
	fmt.Println(errors.Is(err, cachesidecar.ErrNotFound))

	found, err := c.GetMulti(ctx, []string{"user:42", "user:43"}, cachesidecar.GetOptions{})
	fmt.Println(len(found), err)

	fmt.Println(c.Delete(ctx, "user:42", cachesidecar.DeleteOptions{}))
	// Output:
	// Ada from l2, <nil>
	// true
	// 1 <nil>
	// <nil>
}

// Writers that must not overwrite each other's values compare the version.
func ExampleClient_CompareAndSwap() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	c := dialSidecar(ctx, client.Config{})
	defer c.Close()

	version, err := c.Set(ctx, "user:42", []byte("Ada"), cachesidecar.SetOptions{})
	fmt.Println(err)
	_, err = c.CompareAndSwap(ctx, "user:42", []byte("Grace"), version, cachesidecar.SetOptions{})
	fmt.Println(err)

	_, err = c.CompareAndSwap(ctx, "user:42", []byte("Mary"), version, cachesidecar.SetOptions{})
	var exists *cachesidecar.VersionError
	fmt.Println(errors.As(err, &exists) && exists.Version > version)
	// Output:
	// <nil>
	// <nil>
	// true
}

// Load a missing value once in the whole cluster, however many callers want it.
func ExampleClient_GetOrLoad() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	c := dialSidecar(ctx, client.Config{})
	defer c.Close()

	load := func(_ context.Context, key string) ([]byte, error) {
		fmt.Println("asking the database for", key)
		return []byte("Ada"), nil
	}
	for range 3 {
		item, err := c.GetOrLoad(ctx, "user:42", load, client.LoadOptions{TTL: time.Minute})
		fmt.Printf("%s from %s, %v\n", item.Value, item.Source, err)
	}
	// Output:
	// asking the database for user:42
	// Ada from load, <nil>
	// Ada from l2, <nil>
	// Ada from l2, <nil>
}

// Lease is for loads that are not one function of one key. The caller that gets a lease
// loads the value; other callers wait for it.
func ExampleClient_Lease() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	c := dialSidecar(ctx, client.Config{})
	defer c.Close()

	_, lease, err := c.Lease(ctx, "report", cachesidecar.GetOptions{})
	fmt.Println(lease != nil, err)
	_, err = lease.Fill(ctx, []byte("42 users"), client.FillOptions{})
	fmt.Println(err)

	item, lease, err := c.Lease(ctx, "report", cachesidecar.GetOptions{})
	fmt.Printf("%s, %v, %v\n", item.Value, lease != nil, err)
	// Output:
	// true <nil>
	// <nil>
	// 42 users, false, <nil>
}

// Keep values in this process. The client learns from the sidecar which of them are
// outdated.
func ExampleNearCache() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	c := dialSidecar(ctx, client.Config{NearCache: client.NearCache{Bytes: 64 << 20}})
	defer c.Close()

	if _, err := c.Set(ctx, "user:42", []byte("Ada"), cachesidecar.SetOptions{}); err != nil {
		fmt.Println(err)
	}
	// The first read asks the sidecar. Once the client follows the sidecar, the next
	// read does not.
	item, err := c.Get(ctx, "user:42", cachesidecar.GetOptions{})
	for err == nil && item.Source != "near" {
		time.Sleep(time.Millisecond)
		item, err = c.Get(ctx, "user:42", cachesidecar.GetOptions{})
	}
	fmt.Printf("%s from %s, %v\n", item.Value, item.Source, err)

	// This client's own writes are seen at once.
	if _, err := c.Set(ctx, "user:42", []byte("Grace"), cachesidecar.SetOptions{}); err != nil {
		fmt.Println(err)
	}
	item, err = c.Get(ctx, "user:42", cachesidecar.GetOptions{})
	fmt.Printf("%s, %v\n", item.Value, err)
	// Output:
	// Ada from near, <nil>
	// Grace, <nil>
}

// Follow the changes of a key in the whole cluster. The first event is a Reset: read the
// key after it, since earlier changes are not reported.
func ExampleClient_Watch() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	c := dialSidecar(ctx, client.Config{})
	defer c.Close()

	for event, err := range c.Watch(ctx, client.WatchOptions{Keys: []string{"user:42"}}) {
		switch {
		case err != nil:
			fmt.Println("the stream was interrupted:", err)
		case event.Kind == client.Reset:
			fmt.Println("watching")
			_, _ = c.Set(ctx, "user:42", []byte("Ada"), cachesidecar.SetOptions{}) // by any app of any host
		case event.Kind == client.Changed:
			fmt.Println(event.Key, "has changed")
			return
		}
	}
	// Output:
	// watching
	// user:42 has changed
}

// What to do about an error. The text of an error says more.
func Example_errors() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	c := dialSidecar(ctx, client.Config{})
	defer c.Close()

	_, err := c.Set(ctx, "user:42", []byte("Ada"), cachesidecar.SetOptions{TTL: -time.Second})
	switch {
	case err == nil:
		fmt.Println("stored")
	case errors.Is(err, cachesidecar.ErrBusy), errors.Is(err, cachesidecar.ErrUnavailable):
		fmt.Println("surely not stored: try again later")
	case errors.Is(err, cachesidecar.ErrTimeout):
		fmt.Println("perhaps stored")
	case errors.Is(err, cachesidecar.ErrBadRequest), errors.Is(err, cachesidecar.ErrTooLarge):
		fmt.Println("a mistake in this program:", err)
	default:
		fmt.Println(err)
	}
	// Output:
	// a mistake in this program: bad request: a TTL of -1s: give 1ms to 8760h, or NoExpiry
}

// dialSidecar starts a sidecar and connects to it.
func dialSidecar(ctx context.Context, cfg client.Config) *client.Client {
	cfg.Socket = startSidecar(ctx)
	cfg.NoSharedMemory = true // a value that comes from there is in no near cache
	cfg.DialTimeout, cfg.RequestTimeout = time.Minute, time.Minute
	c, err := client.Dial(ctx, cfg)
	if err != nil {
		panic(err)
	}
	return c
}

// startSidecar runs a sidecar until ctx ends and returns its socket.
func startSidecar(ctx context.Context) string {
	dir, err := os.MkdirTemp("", "cachesidecar")
	if err != nil {
		panic(err)
	}
	socket := filepath.Join(dir, "s")
	s, err := sidecar.New(sidecar.Config{Socket: socket, L2Size: 8 << 20})
	if err != nil {
		panic(err)
	}
	go func() {
		_ = s.Run(ctx)
		_ = os.RemoveAll(dir)
	}()
	<-s.Ready()
	return socket
}
