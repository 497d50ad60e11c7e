package measure

import (
	"fmt"
	"syscall"
)

// needFiles returns an error if this process may not open conns connections. The Go
// runtime has already raised the soft limit to the hard limit; the servers raise their
// own.
func needFiles(conns int) error {
	const others = 200
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("how many files may be open: %w", err)
	}
	if l.Cur < uint64(conns+others) {
		return fmt.Errorf("%d connections need %d open files, %d are allowed: raise it with \"ulimit -Hn %d\" as root, or ask for fewer", conns, conns+others, l.Cur, conns+others)
	}
	return nil
}
