package rpc

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// requestIDs sends the ids of the requests that come over nc.
func requestIDs(nc net.Conn) <-chan uint64 {
	ids := make(chan uint64, 100)
	go func() { // ends with the connection
		defer close(ids)
		for {
			var head [wire.LengthSize]byte
			if _, err := io.ReadFull(nc, head[:]); err != nil {
				return
			}
			frame := make([]byte, wire.FrameLength(head[:]))
			if _, err := io.ReadFull(nc, frame); err != nil {
				return
			}
			id, _ := wire.PeekID(frame)
			ids <- id
		}
	}()
	return ids
}

// While the answers of a batch are delivered, requests wait for a gatherer: the one of a
// part writes what is queued by then, the last one the rest.
func TestDirectGathers(t *testing.T) {
	testenv.ReadsClock(t, 5*time.Millisecond, "no request may be written before its turn")
	conns := socketPair(t)
	ids := requestIDs(conns[1])
	c := newClient(conns[0], ClientConfig{Direct: true})
	defer c.Close()
	done := make(chan error, manyInFlight+2)
	begin := func() {
		go func() { // ends with its answer
			call, err := c.Do(context.Background(), time.Minute, &wire.Request{Op: wire.OpPing})
			c.Release(call)
			done <- err
		}()
	}
	queued := func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return !c.requests.empty()
	}
	// beginHeld begins a call in the middle of a batch.
	beginHeld := func() {
		begin()
		testenv.Eventually(t, "a request", queued)
		time.Sleep(5 * time.Millisecond)
		if !queued() || len(ids) > 0 {
			t.Error("a request was written before its turn")
		}
	}
	var written []uint64
	notices := 0
	told := func([]byte) {
		switch notices++; notices {
		case 1:
			beginHeld()
		case 2:
			written = append(written, <-ids) // while the batch goes on
			beginHeld()
		}
	}
	testenv.Must(t, c.Await(&wire.Request{Op: wire.OpLeaving}, told))
	notice := wire.AppendReply(nil, wire.OpLeaving, &wire.Reply{ID: <-ids})
	batch := append([]byte(nil), notice...)
	for range manyInFlight {
		begin()
	}
	for i := range manyInFlight {
		batch = wire.AppendReply(batch, wire.OpPing, &wire.Reply{ID: <-ids})
		if i == 0 { // the first part ends, and with it one gatherer has been started
			batch = append(batch, notice...)
		}
	}
	if _, err := conns[1].Write(batch); err != nil {
		t.Fatal(err)
	}
	for range manyInFlight {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	written = append(written, <-ids)
	for _, id := range written {
		if _, err := conns[1].Write(wire.AppendReply(nil, wire.OpPing, &wire.Reply{ID: id})); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	begin() // after the batch callers write for themselves
	if _, err := conns[1].Write(wire.AppendReply(nil, wire.OpPing, &wire.Reply{ID: <-ids})); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
