//go:build !linux

package main

import "time"

// monotonic returns zero: there is no systemd here.
func monotonic() time.Duration { return 0 }
