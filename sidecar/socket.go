package sidecar

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/unixsock"
)

// socketEvery is the interval of checks of the socket's file.
const socketEvery = time.Second

// socketState is what is known about the socket's file.
type socketState struct {
	gone   atomic.Pointer[string] // why apps do not find the socket; nil: they find it
	remade atomic.Int64           // how often the file was made anew
}

// keepSocket watches the socket's file until ctx ends, and makes it anew if it is gone.
// Another program may delete it, and apps that connect later would not find the sidecar.
func (s *Sidecar) keepSocket(ctx context.Context, l *unixsock.Listener) {
	t := time.NewTicker(socketEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		made, err := l.Keep()
		before := s.socket.gone.Load()
		switch {
		case err != nil:
			why := err.Error()
			s.socket.gone.Store(&why)
			if before == nil || *before != why {
				s.cfg.Log.Error("apps do not find the socket; trying again", "socket", s.path, "error", err)
			}
			continue
		case made:
			s.socket.remade.Add(1)
			s.cfg.Log.Warn("the socket's file was gone, and is made anew", "socket", s.path)
		case before != nil:
			s.cfg.Log.Info("apps find the socket again", "socket", s.path)
		}
		s.socket.gone.Store(nil)
	}
}
