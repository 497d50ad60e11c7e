package simnet

import (
	"time"

	"github.com/hashicorp/memberlist"
)

// datagram is a datagram that waits while a process is stopped.
type datagram struct {
	from, to string // IP addresses
	address  string
	packet   *memberlist.Packet
}

// Stop stops a process, as SIGSTOP does. Whatever is sent to it, and whatever its timers
// make it send, waits.
func (n *Net) Stop(ip string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stopped[ip] = true
}

// Run continues a stopped process and delivers a part, from 0 to 1, of what waits.
// Connections and datagrams are delivered in any order. The rest waits until the next
// Run.
func (n *Net) Run(ip string, part float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.run(ip, part)
}

func (n *Net) run(ip string, part float64) {
	delete(n.stopped, ip)
	held, waiting := n.held, n.waiting
	n.held, n.waiting = nil, nil
	goesOn := func(from, to string) bool {
		return (from == ip || to == ip) && !n.isCut(from, to) && !n.still(from, to) && n.rand.Float64() < part
	}
	for _, p := range held {
		if goesOn(p.from, p.to) {
			p.timer = time.AfterFunc(n.delay(), p.deliver)
		} else {
			n.held = append(n.held, p)
		}
	}
	for _, d := range waiting {
		if goesOn(d.from, d.to) {
			n.deliver(d)
		} else {
			n.waiting = append(n.waiting, d)
		}
	}
	n.change()
}

// still reports whether either process is stopped. The caller holds the lock.
func (n *Net) still(from, to string) bool { return n.stopped[from] || n.stopped[to] }

// deliver sends a datagram. The caller holds the lock.
func (n *Net) deliver(d datagram) {
	time.AfterFunc(n.delay(), func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.arrive(d)
	})
}
