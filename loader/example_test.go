package loader_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// table is an origin in memory. It takes the place of a database.
type table struct {
	mu   sync.Mutex
	rows map[string]string
}

// Load implements loader.Source.
func (t *table) Load(_ context.Context, key []byte) (loader.Value, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	row, ok := t.rows[string(key)]
	if !ok {
		return loader.Value{}, loader.ErrAbsent
	}
	return loader.Value{Bytes: []byte(row), TTL: time.Minute}, nil
}

// Store implements loader.Writer.
func (t *table) Store(_ context.Context, key []byte, v loader.Value) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows[string(key)] = string(v.Bytes)
	return nil
}

// Delete implements loader.Writer.
func (t *table) Delete(_ context.Context, key []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.rows, string(key))
	return nil
}

// Give a namespace an origin of your own. With WriteThrough, changes go to the origin
// first.
func ExampleCustom() {
	users := &table{rows: map[string]string{"42": "Ada"}}
	s, err := sidecar.New(sidecar.Config{
		L2Size: 64 << 20, NoSocket: true,
		Namespaces: map[string]sidecar.Namespace{"users": {
			Origin:       loader.Custom{Source: users, Writer: users},
			WriteThrough: true,
		}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()

	item, err := s.Get(ctx, "users", "42", cachesidecar.GetOptions{})
	fmt.Printf("%s from %s, %v\n", item.Value, item.Source, err)

	_, err = s.Set(ctx, "users", "43", []byte("Grace"), cachesidecar.SetOptions{})
	fmt.Println(err, users.rows["43"])

	stop()
	fmt.Println(<-done)
	// Output:
	// Ada from origin, <nil>
	// <nil> Grace
	// <nil>
}

// A Guard protects an origin from too many calls.
func ExampleGuard() {
	down := loader.SourceFunc(func(context.Context, []byte) (loader.Value, error) {
		return loader.Value{}, errors.New("the database is down")
	})
	g, err := loader.NewGuard(down, loader.GuardConfig{Breaker: loader.Breaker{Failures: 2, Open: time.Minute}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 3 {
		_, err := g.Load(context.Background(), []byte("42"))
		fmt.Println(err, errors.Is(err, loader.ErrBusy))
	}
	// Output:
	// the database is down false
	// the database is down false
	// the origin is busy: its breaker is open after 2 failures true
}
