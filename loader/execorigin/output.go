//go:build unix

package execorigin

import (
	"io"
	"os"
	"syscall"
	"time"
)

// output is a pipe from a command. What the command has written until it ended is its output: a
// process that it leaves behind may hold the pipe for ever.
type output struct {
	r, w *os.File
	to   io.Writer
	done chan struct{} // closed when copying has ended
}

// outputs are the standard output and the standard error of a command.
type outputs []*output

// newOutputs returns pipes whose bytes are copied to writers.
func newOutputs(to ...io.Writer) (all outputs, err error) {
	for _, to := range to {
		r, w, err := os.Pipe()
		if err != nil {
			all.begin()
			all.end()
			return nil, err
		}
		o := &output{r, w, to, make(chan struct{})}
		all = append(all, o)
		go o.copy()
	}
	return all, nil
}

func (o *output) copy() { // ends in end
	defer close(o.done)
	if _, err := io.Copy(o.to, o.r); err != nil && !os.IsTimeout(err) {
		_ = o.r.Close() // the command is not to wait for a reader
	}
}

// begin is called when the command has begun, or could not.
func (all outputs) begin() {
	for _, o := range all {
		_ = o.w.Close()
	}
}

// end is called when the command has ended. It copies what is in the pipes.
func (all outputs) end() {
	for _, o := range all {
		_ = o.r.SetReadDeadline(time.Now())
		<-o.done
		o.drain()
		_ = o.r.Close()
	}
}

func (o *output) drain() {
	if o.r.SetReadDeadline(time.Time{}) != nil {
		return
	}
	raw, err := o.r.SyscallConn()
	if err != nil {
		return
	}
	b := make([]byte, pipeSize) // once: others may go on writing
	_ = raw.Read(func(fd uintptr) bool {
		if n, _ := syscall.Read(int(fd), b); n > 0 {
			_, _ = o.to.Write(b[:n])
		}
		return true // it does not wait for bytes
	})
}

// pipeSize is the most that a pipe holds, unless a command enlarges it.
const pipeSize = 64 << 10
