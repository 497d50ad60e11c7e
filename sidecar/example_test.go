package sidecar_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// Example runs a sidecar inside a program. With NoSocket the sidecar serves this program
// alone; without NoSocket, other programs on the host use it too.
func Example() {
	s, err := sidecar.New(sidecar.Config{L2Size: 64 << 20, NoSocket: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()

	if _, err := s.Set(ctx, "users", "42", []byte("Ada"), cachesidecar.SetOptions{TTL: time.Minute}); err != nil {
		fmt.Println(err)
	}
	v, err := s.Get(ctx, "users", "42", cachesidecar.GetOptions{})
	fmt.Printf("%s, %v\n", v.Value, err)

	_, err = s.Get(ctx, "users", "43", cachesidecar.GetOptions{})
	fmt.Println(errors.Is(err, cachesidecar.ErrNotFound))

	stop()
	fmt.Println(<-done)
	// Output:
	// Ada, <nil>
	// true
	// <nil>
}
