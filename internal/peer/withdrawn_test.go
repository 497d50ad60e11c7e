package peer

import (
	"testing"
	"time"
)

// TestVirtualWithdrawnDialed: this node's own connection to a host whose root is accepted
// no more ends, though that host would keep it; and one that is accepted stays.
func TestVirtualWithdrawnDialed(t *testing.T) {
	inLab(t, func(l *lab) {
		k := newKeys(l.T, "a", l.one)
		p := l.pool("10.0.0.1", k)
		for _, purpose := range []Purpose{Call, Poll} {
			if _, err := get(l.T, p, nodeB, purpose); err != nil {
				l.Fatal(err)
			}
		}
		k.set(l.T, "a", l.two, l.one) // the other does not accept it yet, and keeps what it has
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
