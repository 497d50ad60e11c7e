package top

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Sequences of ANSI terminals.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l" // the other screen, no cursor, no line wrap
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	endOfLine   = "\x1b[K\r\n"
	endOfScreen = "\x1b[J"
)

// screen is a terminal that shows pages: its other screen, without echo, with each key as
// it is pressed.
type screen struct {
	in, out *os.File
	before  *term.State
}

// open begins to show pages. Its caller calls close, in any case.
func (s *screen) open() (err error) {
	if s.before, err = term.MakeRaw(int(s.in.Fd())); err == nil {
		_, err = s.out.WriteString(enterScreen)
	}
	return err
}

// close gives the terminal back as it was. It may be called twice.
func (s *screen) close() error {
	if s.before == nil {
		return nil
	}
	_, err := s.out.WriteString(leaveScreen)
	err = errors.Join(err, term.Restore(int(s.in.Fd()), s.before))
	s.before = nil
	return err
}

// size returns the columns and lines of the terminal.
func (s *screen) size() (width, height int) {
	width, height, err := term.GetSize(int(s.out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		return 80, 24
	}
	return width, height
}

// suspend gives the terminal back, stops the process group as Ctrl-Z does, and shows pages
// again once the shell has continued it.
func (s *screen) suspend(continued <-chan os.Signal) error {
	if !jobControl() {
		return nil
	}
	if err := errors.Join(s.close(), syscall.Kill(0, syscall.SIGSTOP)); err != nil {
		return err
	}
	select { // the signal may take a moment
	case <-continued:
	case <-time.After(200 * time.Millisecond):
	}
	return s.open()
}

// jobControl reports whether a process of the same session, such as a shell, can continue
// this one after it was stopped. "ssh HOST cachesidecar top" has none.
func jobControl() bool {
	own, err := unix.Getsid(0)
	parents, err2 := unix.Getsid(os.Getppid())
	return err == nil && err2 == nil && own == parents
}

// readKeys sends the keys that are pressed, until ctx or the terminal ends. Then it closes pressed. It notices the
// end of ctx with the next key: only the end of the process, which is near, can interrupt a read.
func readKeys(ctx context.Context, in *os.File, pressed chan<- byte) {
	defer close(pressed)
	b := make([]byte, 64)
	for {
		n, err := in.Read(b)
		if err != nil {
			return
		}
		for _, c := range singleKeys(b[:n]) {
			select {
			case pressed <- c:
			case <-ctx.Done():
				return
			}
		}
	}
}

// singleKeys returns the keys of one byte. Arrows and the like are sequences of several
// bytes, and do nothing.
func singleKeys(b []byte) (out []byte) {
	const escape = 0x1b
	for i := 0; i < len(b); i++ {
		if b[i] != escape {
			out = append(out, b[i])
			continue
		}
		if i++; i < len(b) && (b[i] == '[' || b[i] == 'O') {
			for i++; i < len(b) && (b[i] < '@' || b[i] > '~'); i++ { // up to the last byte of a sequence
			}
		}
	}
	return out
}
