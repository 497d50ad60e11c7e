package sidecar

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// socketEvery is the interval of checks of the socket's file.
const socketEvery = time.Second

// socketState is what is known about the socket's file.
type socketState struct {
	gone   atomic.Pointer[string] // why apps do not find the socket; nil: they find it
	remade atomic.Int64           // how often the file was made anew
}

// keep watches the socket's file until ctx ends, and makes it anew if it is gone.
// Another program may delete it, and apps that connect later would not find the sidecar.
func (state *socketState) keep(ctx context.Context, l *unixsock.Listener, log *slog.Logger) {
	for range kv.Every(ctx, socketEvery) {
		made, err := l.Keep()
		before := state.gone.Load()
		switch {
		case err != nil:
			why := err.Error()
			state.gone.Store(&why)
			if before == nil || *before != why {
				log.Error("apps do not find the socket; trying again", "socket", l.Path(), "error", err)
			}
			continue
		case made:
			state.remade.Add(1)
			log.Warn("the socket's file was gone, and is made anew", "socket", l.Path())
		case before != nil:
			log.Info("apps find the socket again", "socket", l.Path())
		}
		state.gone.Store(nil)
	}
}
