package peers

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Held is what a sidecar's process holds.
type Held struct {
	Resident    int64 // bytes
	Goroutines  int64
	Descriptors int64
}

// Holds returns what a sidecar's process holds.
func (s *Server) Holds(ctx context.Context) (h Held, err error) {
	c, err := client.Dial(ctx, client.Config{Socket: s.Socket, RequestTimeout: stopTime, DialTimeout: stopTime})
	if err != nil {
		return h, err
	}
	defer c.Close()
	err = s.holds(ctx, c, &h)
	return h, err
}

// holds raises the figures of h to those of now.
func (s *Server) holds(ctx context.Context, c *client.Client, h *Held) error {
	st, err := c.Stats(ctx)
	if err != nil {
		return fmt.Errorf("stats: %w", err)
	}
	h.Goroutines = max(h.Goroutines, st.Process.Goroutines)
	return s.fromOutside(h)
}

// fromOutside is the part of holds that asks the kernel alone.
func (s *Server) fromOutside(h *Held) error {
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
	if err != nil {
		return err
	}
	h.Descriptors = max(h.Descriptors, int64(len(files)))
	resident, err := s.Resident()
	h.Resident = max(h.Resident, resident)
	return err
}

// watchEvery is the pause between two looks at a process.
const watchEvery = 50 * time.Millisecond

// Watch looks at a sidecar's process until stop is called, which returns the most that
// the process has held. It asks for the goroutines over a connection that it has had from the start,
// like any app of the same user.
func (s *Server) Watch(ctx context.Context) (stop func() (Held, error)) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	var most Held
	c, err := client.Dial(ctx, client.Config{Socket: s.Socket, RequestTimeout: stopTime, DialTimeout: stopTime})
	if err == nil {
		err = s.holds(ctx, c, &most)
	}
	go func() { // ends with stop
		defer close(done)
		for err == nil && ctx.Err() == nil {
			if e := s.fromOutside(&most); e != nil {
				err = e
				return
			}
			if e := s.holds(ctx, c, &most); e != nil && ctx.Err() == nil {
				err = e
				return
			}
			kv.Sleep(ctx, watchEvery)
		}
	}()
	return func() (Held, error) {
		cancel()
		<-done
		if c != nil {
			c.Close()
		}
		return most, err
	}
}
