// Command echo sends back what it reads on a Unix socket or a TCP address. It shows the
// upper limit of a Go server: one read and one write per batch, without other work.
//
//	echo SOCKET
//	echo HOST:PORT
//
// It has one goroutine per connection, which ends with the connection.
package main

import (
	"fmt"
	"net"
	"os"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "echo: give the path of the socket to listen on, or host:port")
		os.Exit(2)
	}
	fmt.Fprintln(os.Stderr, "echo:", serve(os.Args[1]))
	os.Exit(1)
}

// serve accepts connections until an error.
func serve(where string) error {
	network := "unix"
	if !strings.Contains(where, "/") {
		network = "tcp"
	}
	ln, err := net.Listen(network, where)
	if err != nil {
		return err
	}
	for {
		nc, err := ln.Accept()
		if err != nil {
			return err
		}
		go echo(nc) // ends when the peer closes
	}
}

func echo(nc net.Conn) {
	defer nc.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := nc.Read(buf)
		if err != nil {
			return
		}
		if _, err := nc.Write(buf[:n]); err != nil {
			return
		}
	}
}
