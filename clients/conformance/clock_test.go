package main

import (
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/clocks"
)

// TestClockReaders does here what its namesake does for the program.
func TestClockReaders(t *testing.T) { clocks.Check(t) }
