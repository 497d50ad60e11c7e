package testenv

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

// TestAddresses checks that a refusing address refuses connections and cannot be taken, and
// that a free one can be.
func TestAddresses(t *testing.T) {
	address := Refusing(t)
	if _, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial: %v", err)
	}
	if l, err := net.Listen("tcp", address); err == nil {
		l.Close()
		t.Error("another socket takes the address")
	}
	if !Free(FreeAddress(t)) || Free(address) {
		t.Error("a free address is in use, or one in use is free")
	}
}
