package sidecar

import (
	"cmp"
	"fmt"
	"net"
	"os"
)

// memcachedName is what FileDescriptorName= of a unit says if its listener is not for the socket.
const memcachedName = "memcached"

// takePassed says what the listeners are for that systemd has passed on; nil: none is. They stay open while
// the sidecar restarts, and clients that connect meanwhile wait. The one at the address of memcached is the
// endpoint's, another Unix socket is the socket. Any other one is refused: its clients would wait for ever,
// and it could be open to other hosts.
func takePassed(c *Config, files []*os.File) (socket *net.UnixListener, memcached net.Listener, err error) {
	for _, f := range files {
		ln, err := takeListener(f)
		if err != nil {
			return nil, nil, err
		}
		unix, ok := ln.(*net.UnixListener)
		switch {
		case listensAt(c.Memcached, ln.Addr()):
			memcached = ln
		case ok && socket == nil && f.Name() != memcachedName:
			socket = unix
		default:
			beside := ""
			if socket != nil {
				beside = ", beside the socket at " + socket.Addr().String()
			}
			return nil, nil, fmt.Errorf("systemd passes on a listener at %s%s, but memcached is %s: give memcached "+
				"and ListenStream= of the socket unit the same address, or remove that ListenStream=",
				ln.Addr(), beside, cmp.Or(c.Memcached, "off"))
		}
	}
	return socket, memcached, nil
}

// takeListener returns the listener of a descriptor, which it closes.
func takeListener(f *os.File) (net.Listener, error) {
	defer f.Close()
	ln, err := net.FileListener(f)
	if err == nil {
		kind := ln.Addr().Network()
		if kind == "unix" || kind == "tcp" {
			return ln, nil
		}
		_ = ln.Close()
		err = fmt.Errorf("its kind is %s", kind)
	}
	return nil, fmt.Errorf("systemd passes on %s, which is no listener of streams (%w): "+
		"its socket unit must have ListenStream= only", f.Name(), err)
}

// listensAt reports whether a listener is at the address of a setting: a path, or host:port of this host.
func listensAt(setting string, at net.Addr) bool {
	tcp, ok := at.(*net.TCPAddr)
	if !ok {
		return at.String() == setting
	}
	host, port, _ := net.SplitHostPort(setting)
	n, err := net.LookupPort("tcp", port)
	here := tcp.IP.Equal(net.ParseIP(host)) || host == "localhost" && tcp.IP.IsLoopback()
	return err == nil && n == tcp.Port && here
}
