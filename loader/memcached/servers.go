package memcached

import (
	"hash/crc32"
	"net"
	"strings"
)

// servers distributes keys like gomemcache's own list. The difference is in host names:
// gomemcache resolves them once, at the start; servers resolves them at each connection.
// So a name may be unknown for a while, and its address may change.
type servers []server

// server is an address in the form that net.Dial takes.
type server struct{ network, address string }

func (srv server) Network() string { return srv.network }
func (srv server) String() string  { return srv.address }

func newServers(addresses []string) (list servers) {
	for _, a := range addresses {
		if strings.HasPrefix(a, "/") {
			list = append(list, server{"unix", a})
			continue
		}
		list = append(list, server{"tcp", a})
	}
	return list
}

// PickServer returns the server of a key.
func (list servers) PickServer(key string) (net.Addr, error) {
	if len(list) == 1 {
		return list[0], nil
	}
	return list[crc32.ChecksumIEEE([]byte(key))%uint32(len(list))], nil
}

// Each calls f with every server.
func (list servers) Each(f func(net.Addr) error) error {
	for _, a := range list {
		if err := f(a); err != nil {
			return err
		}
	}
	return nil
}
