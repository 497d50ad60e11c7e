//go:build !race

package segment

import "golang.org/x/sys/unix"

const mmapFlags = unix.MAP_ANON | unix.MAP_PRIVATE
