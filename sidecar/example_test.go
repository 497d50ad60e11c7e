package sidecar_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// Run a sidecar inside a program. With NoSocket it serves this program alone.
func Example() {
	s, err := sidecar.New(sidecar.Config{L2Size: 64 << 20, NoSocket: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()

	_, err = s.Set(ctx, "users", "42", []byte("Ada"), cachesidecar.SetOptions{TTL: time.Minute})
	if err != nil {
		fmt.Println(err)
	}
	item, err := s.Get(ctx, "users", "42", cachesidecar.GetOptions{})
	fmt.Printf("%s from %s, %v\n", item.Value, item.Source, err)

	_, err = s.Get(ctx, "users", "43", cachesidecar.GetOptions{})
	fmt.Println(errors.Is(err, cachesidecar.ErrNotFound))

	stop()
	fmt.Println(<-done)
	// Output:
	// Ada from l2, <nil>
	// true
	// <nil>
}

// Without NoSocket the other programs on this host use the embedded sidecar too.
func Example_socket() {
	dir, err := os.MkdirTemp("", "cachesidecar")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	s, err := sidecar.New(sidecar.Config{L2Size: 64 << 20, Socket: filepath.Join(dir, "s")})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	<-s.Ready()

	// In another program:
	c, err := client.Dial(ctx, client.Config{Socket: s.SocketPath(), Namespace: "users", DialTimeout: time.Minute})
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := c.Set(ctx, "42", []byte("Ada"), cachesidecar.SetOptions{}); err != nil {
		fmt.Println(err)
	}
	_ = c.Close()

	item, err := s.Get(ctx, "users", "42", cachesidecar.GetOptions{})
	fmt.Printf("%s, %v\n", item.Value, err)
	stop()
	fmt.Println(<-done)
	// Output:
	// Ada, <nil>
	// <nil>
}

// Load missing values with a function of this program. The sidecar calls it once for all
// readers of a key.
func Example_origin() {
	users := loader.SourceFunc(func(_ context.Context, key []byte) (loader.Value, error) {
		if string(key) != "42" {
			return loader.Value{}, loader.ErrAbsent
		}
		fmt.Println("asking the database")
		return loader.Value{Bytes: []byte("Ada")}, nil
	})
	s, err := sidecar.New(sidecar.Config{
		L2Size: 64 << 20, NoSocket: true,
		Namespaces: map[string]sidecar.Namespace{"users": {
			Origin: loader.Custom{Source: users},
			Limits: sidecar.Limits{Concurrency: 8, Timeout: 5 * time.Second},
		}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()

	for range 2 {
		item, err := s.Get(ctx, "users", "42", cachesidecar.GetOptions{})
		fmt.Printf("%s from %s, %v\n", item.Value, item.Source, err)
	}
	_, err = s.Get(ctx, "users", "43", cachesidecar.GetOptions{})
	fmt.Println(errors.Is(err, cachesidecar.ErrAbsent))
	stop()
	fmt.Println(<-done)
	// Output:
	// asking the database
	// Ada from origin, <nil>
	// Ada from l2, <nil>
	// true
	// <nil>
}
