//go:build !linux

package rpc

// giveWay does nothing: a turn ends when the system ends it.
func giveWay() {}
