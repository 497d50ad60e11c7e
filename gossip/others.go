package gossip

import (
	"net"
	"net/netip"
	"slices"
)

// Others returns the join addresses at which other nodes should be: all but this node's
// own. A name that has never been found is among them, because it may be misspelt. If a
// name that was found cannot be looked up, its last addresses count.
func (g *Gossip) Others() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.others
}

// takeAddress takes this node's address. Until the join addresses are looked up, names are others'.
func (g *Gossip) takeAddress(address string) {
	g.mu.Lock()
	g.address = address
	g.mu.Unlock()
	g.found = make([][]string, len(g.cfg.Join))
	g.setOthers(make([][]string, len(g.cfg.Join)))
}

// setOthers takes the present addresses of each join address.
func (g *Gossip) setOthers(lists [][]string) {
	var others []string
	machine := g.machine()
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, j := range g.cfg.Join {
		if len(lists[i]) > 0 {
			g.found[i] = lists[i]
		}
		list := g.found[i]
		if len(list) == 0 {
			list = []string{j}
		}
		for _, a := range list {
			if !isOwn(a, g.address, machine) {
				others = append(others, a)
			}
		}
	}
	slices.Sort(others)
	g.others = slices.Compact(others)
}

// isOwn reports whether an ip:port leads to this node itself. That may be another address
// of its machine, such as the one that a name has beside the bound address.
func isOwn(address, bound string, machine []netip.Addr) bool {
	own, err := netip.ParseAddrPort(bound)
	a, e := netip.ParseAddrPort(address)
	switch {
	case err != nil || e != nil || a.Port() != own.Port():
		return false
	case a == own:
		return true
	case own.Addr().IsLoopback(): // several nodes of one machine may have its loopback addresses
		return a.Addr().IsLoopback() && a.Addr().Is4() != own.Addr().Is4()
	}
	return a.Addr().IsLoopback() || slices.Contains(machine, a.Addr().WithZone(""))
}

// machine returns the addresses of this machine. If the system does not tell them, the
// bound address is the only one that is known to be this node's.
func (g *Gossip) machine() (list []netip.Addr) {
	ask := g.cfg.Interfaces
	switch {
	case ask == nil && g.cfg.Transport != nil:
		return nil
	case ask == nil:
		ask = net.InterfaceAddrs
	}
	addresses, _ := ask()
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok {
			ip, _ := netip.AddrFromSlice(n.IP)
			list = append(list, ip.Unmap())
		}
	}
	return list
}
