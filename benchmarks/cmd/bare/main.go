// Command bare answers memcached's get and set on a Unix socket with fixed values. It shows what a
// request costs a Go server at least: a goroutine for each connection in the runtime's poller, one
// raw read and one raw write for what has come.
//
//	bare SOCKET LENGTH
//
// Each get has a value of LENGTH bytes. Its goroutines end with their connections.
package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "bare: give the path of the socket to listen on, and the length of values")
		os.Exit(2)
	}
	length, err := strconv.Atoi(os.Args[2])
	if err == nil {
		err = serve(os.Args[1], length)
	}
	fmt.Fprintln(os.Stderr, "bare:", err)
	os.Exit(1)
}

// serve accepts connections until an error.
func serve(socket string, length int) error {
	ln, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	value := fmt.Appendf(nil, " 0 %d\r\n%s\r\nEND\r\n", length, bytes.Repeat([]byte("v"), length))
	for {
		nc, err := ln.Accept()
		if err != nil {
			return err
		}
		go (&conn{value: value}).serve(nc) // ends when the peer closes
	}
}

// conn is a connection.
type conn struct {
	value   []byte // behind the key in an answer
	in, out [64 << 10]byte
	n       int // bytes of in that are not answered
}

func (c *conn) serve(nc net.Conn) {
	defer nc.Close()
	if raw, err := nc.(*net.UnixConn).SyscallConn(); err == nil {
		_ = raw.Read(func(fd uintptr) (done bool) { return c.batches(int(fd)) })
	}
}

// batches answers what has come, and says whether the connection has ended.
func (c *conn) batches(fd int) (ended bool) {
	for {
		n, err := now(syscall.SYS_READ, fd, c.in[c.n:])
		switch {
		case err == syscall.EAGAIN:
			return false
		case err != 0 || n <= 0:
			return true
		}
		c.n += n
		full := c.n == len(c.in)
		if out := c.answer(c.out[:0]); len(out) > 0 {
			if n, err := now(syscall.SYS_WRITE, fd, out); err != 0 || n < len(out) {
				return true
			}
		}
		if !full {
			return false
		}
	}
}

// now reads or writes what is possible without waiting, and does not tell Go's scheduler of it.
func now(call uintptr, fd int, b []byte) (int, syscall.Errno) {
	n, _, err := syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), err
}

// answer appends the answers to whole requests, and keeps the rest.
func (c *conn) answer(out []byte) []byte {
	in := c.in[:c.n]
	for {
		end := bytes.IndexByte(in, '\n') + 1
		if end == 0 {
			break
		}
		if key, ok := bytes.CutPrefix(in[:end], []byte("get ")); ok {
			out = append(append(out, "VALUE "...), bytes.TrimRight(key, "\r\n")...)
			out = append(out, c.value...)
		} else {
			line := bytes.TrimRight(in[:end], "\r\n")
			length, _ := strconv.Atoi(string(line[bytes.LastIndexByte(line, ' ')+1:]))
			if end += length + len("\r\n"); end > len(in) {
				break
			}
			out = append(out, "STORED\r\n"...)
		}
		in = in[end:]
	}
	c.n = copy(c.in[:], in)
	return out
}
