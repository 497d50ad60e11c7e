package main

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestBenchLeavesNothing checks that bench removes its keys, and no other, also after an interrupt.
func TestBenchLeavesNothing(t *testing.T) {
	serveHere(t)
	mustRun(t, "set", "mine", "v", "--ns", "bench")
	const first = "k000000000000000"
	mustRun(t, "bench", "--duration", "1ms", "--keys", "3000")
	there := func(key string) bool { return command(t, "", "get", key, "--ns", "bench").status == exitDone }
	if there(first) {
		t.Error("a key of bench is left")
	}
	ctx, interrupt := context.WithCancel(t.Context())
	ended := make(chan int)
	go func() { // ends after the interrupt
		var out, err bytes.Buffer
		ended <- (&program{in: strings.NewReader(""), out: &out, err: &err}).run(ctx, []string{"cachesidecar", "bench", "--duration", "1h", "--keys", "3000"})
	}()
	testenv.Eventually(t, "keys of bench", func() bool { return there(first) })
	interrupt()
	if status := <-ended; status != exitMiss || there(first) {
		t.Errorf("after an interrupt: status %d, a key is left: %v", status, there(first))
	}
	if !there("mine") {
		t.Error("bench has removed a key of somebody else")
	}
}
