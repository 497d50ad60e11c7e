//go:build !linux

package attacks

import "testing"

// cage is a limit of memory, which only Linux has.
type cage struct{ limit int64 }

func newCage(testing.TB, testing.TB, int64) *cage { return nil }
func (*cage) prefix() []string                    { return nil }
func (*cage) used() int64                         { return 0 }
