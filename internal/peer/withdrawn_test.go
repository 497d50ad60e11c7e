package peer

import (
	"testing"
	"time"
)

// TestVirtualWithdrawnDialed checks that this node's own connection to a host ends when
// the host's root is not accepted any more, even though the host would keep it. A
// connection whose root is accepted stays.
func TestVirtualWithdrawnDialed(t *testing.T) {
	inLab(t, func(l *lab) {
		k := newKeys(l.T, "a", l.one)
		p := l.pool("10.0.0.1", k)
		for _, purpose := range []Purpose{Call, Poll} {
			if _, err := get(l.T, p, nodeB, purpose); err != nil {
				l.Fatal(err)
			}
		}
		// The other host does not accept it yet, and keeps its connections.
		k.set(l.T, "a", l.two, l.one)
		p.Renew()
		time.Sleep(time.Minute)
		if _, err := get(l.T, p, nodeB, Call); err != nil {
			l.Errorf("a connection that is accepted still: %v", err)
		}
		k.set(l.T, "a", l.two)
		p.Renew()
		time.Sleep(15 * time.Second)
		for _, purpose := range []Purpose{Call, Poll} {
			if got, err := get(l.T, p, nodeB, purpose); err == nil {
				l.Errorf("a host whose key was withdrawn answers %q", got)
			}
		}
	})
}
