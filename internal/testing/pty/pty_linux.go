// Package pty gives tests a pseudoterminal: one end is the program's stdin or stdout, the test has the other.
//
// Open starts a goroutine that collects what the program writes; it ends with the test. The package emulates no
// terminal: a test sees the bytes as the program has written them.
package pty

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// Terminal is a pseudoterminal. The program has one end as stdin or stdout, the test has
// the other.
type Terminal struct {
	Ours, Its *os.File

	mu   sync.Mutex
	text bytes.Buffer // what the program has written
	more chan struct{}
}

// Open makes a terminal, which ends with the test.
func Open(t testing.TB) *Terminal {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudoterminals here: %v", err)
	}
	fd := int(ours.Fd())
	testenv.Must(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	testenv.Must(t, err)
	its, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	testenv.Must(t, err)
	// Output must arrive unchanged: no \r before \n, no echo.
	attr, err := unix.IoctlGetTermios(int(its.Fd()), unix.TCGETS)
	testenv.Must(t, err)
	attr.Oflag &^= unix.OPOST
	attr.Lflag &^= unix.ECHO
	testenv.Must(t, unix.IoctlSetTermios(int(its.Fd()), unix.TCSETS, attr))
	tt := &Terminal{Ours: ours, Its: its, more: make(chan struct{}, 1)}
	done := make(chan struct{})
	go func() { // ends when its end is closed
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, err := ours.Read(b)
			tt.mu.Lock()
			tt.text.Write(b[:n])
			tt.mu.Unlock()
			select {
			case tt.more <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_, _ = ours.WriteString("\n") // ends a read that waits for a key
		its.Close()
		<-done
		ours.Close()
	})
	return tt
}

// WaitFor waits until ok accepts the output, and returns it.
func (tt *Terminal) WaitFor(t testing.TB, what string, ok func(string) bool) string {
	t.Helper()
	deadline := testenv.Expired()
	for {
		tt.mu.Lock()
		text := tt.text.String()
		tt.mu.Unlock()
		if ok(text) {
			return text
		}
		select {
		case <-tt.more:
		case <-deadline:
			t.Fatalf("waited for %s on the terminal; there is %q", what, text)
		}
	}
}

// Resize gives a terminal a size, as a window of a desktop does.
func (tt *Terminal) Resize(t testing.TB, width, height uint16) {
	t.Helper()
	size := unix.Winsize{Row: height, Col: width}
	testenv.Must(t, unix.IoctlSetWinsize(int(tt.Ours.Fd()), unix.TIOCSWINSZ, &size))
}

// Press writes keys, as a person presses them.
func (tt *Terminal) Press(t testing.TB, keys string) {
	t.Helper()
	if _, err := tt.Ours.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

// Settings returns the terminal's settings, which raw mode changes.
func (tt *Terminal) Settings(t testing.TB) unix.Termios {
	t.Helper()
	attr, err := unix.IoctlGetTermios(int(tt.Its.Fd()), unix.TCGETS)
	testenv.Must(t, err)
	return *attr
}
