package transport

import "net"

// UserOf returns the user of the process at the other end of a TCP connection. ok is false if that process is
// not on this host, or the system does not tell. It is for fair shares and gives no rights: it is the user that
// has made the socket, as seen now.
func UserOf(nc net.Conn) (uid int, ok bool) {
	own, isTCP := nc.LocalAddr().(*net.TCPAddr)
	other, alsoTCP := nc.RemoteAddr().(*net.TCPAddr)
	if !isTCP || !alsoTCP {
		return 0, false
	}
	return userOf(other.AddrPort(), own.AddrPort())
}
