package sidecar

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// layer is a group of goroutines that end together. The first error ends all of them.
type layer struct {
	*errgroup.Group
	ctx  context.Context // ends with the layer
	stop context.CancelFunc
}

func newLayer(parent context.Context) *layer {
	ctx, stop := context.WithCancel(parent)
	group, ctx := errgroup.WithContext(ctx)
	return &layer{group, ctx, stop}
}

// run adds a function that has no error.
func (l *layer) run(f func(context.Context)) {
	l.Go(func() error { f(l.ctx); return nil })
}
