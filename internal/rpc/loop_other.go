//go:build !linux

package rpc

// loop is for Linux. Elsewhere each connection has a goroutine.
type loop struct{}

func newLoop(*Server) *loop { return nil }

func (*loop) take(*Conn) bool  { return false }
func (*loop) free(*Conn)       {}
func (*loop) halt()            {}
func (*Conn) leaveLoop() error { return nil }
