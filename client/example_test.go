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

func Example() {
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	socket := startSidecar(ctx) // in production: "cachesidecar run" on the host

	c, err := client.Dial(ctx, client.Config{Socket: socket})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	if _, err := c.Set(ctx, "user:42", []byte("Ada"), cachesidecar.SetOptions{TTL: time.Minute}); err != nil {
		fmt.Println(err)
	}
	item, err := c.Get(ctx, "user:42", cachesidecar.GetOptions{})
	fmt.Printf("%s from %s, %v\n", item.Value, item.Source, err)

	_, err = c.Get(ctx, "user:43", cachesidecar.GetOptions{})
	fmt.Println(errors.Is(err, cachesidecar.ErrNotFound))

	// Writers that must not overwrite each other's values compare the version.
	_, err = c.CompareAndSwap(ctx, "user:42", []byte("Grace"), item.Version, cachesidecar.SetOptions{})
	fmt.Println(err)
	// Output:
	// Ada from l2, <nil>
	// true
	// <nil>
}

func ExampleClient_GetOrLoad() {
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	c, err := client.Dial(ctx, client.Config{Socket: startSidecar(ctx)})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	load := func(_ context.Context, key string) ([]byte, error) {
		fmt.Println("asking the database for", key)
		return []byte("Ada"), nil
	}
	for range 3 {
		item, err := c.GetOrLoad(ctx, "user:42", load, client.LoadOptions{})
		fmt.Printf("%s from %s, %v\n", item.Value, item.Source, err)
	}
	// Output:
	// asking the database for user:42
	// Ada from load, <nil>
	// Ada from l2, <nil>
	// Ada from l2, <nil>
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
