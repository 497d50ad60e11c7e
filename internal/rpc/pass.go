package rpc

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// errPass says that a descriptor cannot be passed now.
var errPass = errors.New("a descriptor is passed over a Unix socket alone, and with no other answer under way")

// Pass writes what Out has, and then a frame with which a descriptor goes. It is for
// connections that have no other request under way: nothing else may be written meanwhile.
func (c *Conn) Pass(frame []byte, file *os.File) error {
	if err := c.leaveLoop(); err != nil { // the write may wait
		return err
	}
	uc, ok := c.socket.nc.(*net.UnixConn)
	if !ok {
		return errPass
	}
	if err := c.flush(); err != nil {
		return err
	}
	o := &c.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	if o.writing || !o.queue.empty() {
		return errPass
	}
	o.writing = true
	o.mu.Unlock()
	err := pass(uc, frame, file, c.server.limits.WriteTimeout)
	o.mu.Lock()
	o.count(len(frame))
	if err != nil {
		o.failLocked(err)
	}
	if o.moreLocked() {
		o.writeLocked(o.queue.pop(), false)
	} else {
		o.doneLocked()
	}
	return o.err
}

func pass(uc *net.UnixConn, frame []byte, file *os.File, timeout time.Duration) error {
	if err := uc.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	n, _, err := uc.WriteMsgUnix(frame, syscall.UnixRights(int(file.Fd())), nil)
	if err == nil && n < len(frame) {
		_, err = uc.Write(frame[n:])
	}
	return errors.Join(err, uc.SetWriteDeadline(time.Time{}))
}
