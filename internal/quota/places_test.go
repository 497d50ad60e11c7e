package quota

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestSharesLeaveRoom: connections that take all places they get leave some to a new
// connection of the same tenant, and to another tenant.
func TestSharesLeaveRoom(t *testing.T) {
	for r := range Resources {
		if r == Descriptors {
			continue // see TestOneDescriptor
		}
		t.Run(resourceNames[r], func(t *testing.T) {
			s := NewPlaces([Resources]int64{1 << 16, 1024, 1 << 16, 255, 1000, 1024})
			total := s.Total(r)
			hogs := []*Client{s.Join("uid 1"), s.Join("uid 1"), s.Join("uid 1")}
			taken := int64(0)
			for _, m := range hogs {
				for m.Acquire(r) == nil {
					taken++
				}
			}
			most := total * 3 / 4
			if r == Connections {
				most = total * 7 / 8
			}
			if taken > most+1 || taken < most/8 {
				t.Errorf("one tenant got %d of %d", taken, total)
			}
			if divisors[r] > 0 {
				if err := s.Join("uid 1").Acquire(r); err != nil {
					t.Errorf("a new connection of the tenant: %v", err)
				}
			}
			other := s.Join("uid 2")
			n := 0
			for other.Acquire(r) == nil {
				n++
			}
			if n < 3 {
				t.Errorf("another tenant got %d", n)
			}
			err := other.Acquire(r)
			if want := fmt.Sprintf("uid 2 holds %d and this connection %d of the %d ", n, n, total); err == nil || err.Status != wire.Busy || !strings.HasPrefix(err.Message, want) {
				t.Errorf("got %v, want %s…", err, want)
			}
			for range n {
				other.Release(r)
			}
			if other.Leave(); s.tenants["uid 2"] != nil {
				t.Error("a tenant without connections is remembered")
			}
			if st := s.Stats()[r]; st.Refused != 5 && st.Refused != 4+1 || st.Most != "uid 1" {
				t.Errorf("%+v", st)
			}
		})
	}
}

// TestConnectionsLeft: users one after the other take all connections that they get. Many of them find some,
// and an administrator does behind all.
func TestConnectionsLeft(t *testing.T) {
	for total, users := range map[int64]int{64: 5, 1000: 46, 16_384: 259} {
		s := NewPlaces([Resources]int64{Connections: total})
		var n []int
		for i := range users {
			m, taken := s.Join(UserTenant(i)), 0
			for m.Acquire(Connections) == nil {
				taken++
			}
			if n = append(n, taken); taken == 0 || i > 0 && taken > max(1, int(total/64)) {
				t.Fatalf("of %d: %v", total, n)
			}
		}
		if least := int(total * 7 / 8); n[0] < least {
			t.Errorf("the first user got %d of %d", n[0], total)
		}
		root := s.Join("root")
		if root.Acquire(Connections) == nil {
			t.Errorf("of %d none is kept for administrators", total)
		}
		root.Administers = true
		for range 3 {
			if err := root.Acquire(Connections); err != nil {
				t.Errorf("an administrator: %v", err)
			}
		}
	}
}

// TestLastPlaceForgetsTenant: a tenant whose names and tokens outlive its connections is
// forgotten with the last of them.
func TestLastPlaceForgetsTenant(t *testing.T) {
	s := NewPlaces([Resources]int64{Namespaces: 10})
	m := s.Join("uid 1")
	if err := m.Acquire(Namespaces); err != nil {
		t.Fatal(err)
	}
	m.Leave()
	if s.tenants["uid 1"] == nil {
		t.Error("a tenant that has a name is forgotten")
	}
	if m.Release(Namespaces); s.tenants["uid 1"] != nil {
		t.Error("a tenant that has nothing is remembered")
	}
}

// TestOneDescriptor: a connection has one descriptor under way, and all connections of a tenant
// leave a quarter to others.
func TestOneDescriptor(t *testing.T) {
	s := NewPlaces([Resources]int64{Descriptors: 100})
	taken := 0
	for range 200 {
		m := s.Join("uid 1")
		if m.Acquire(Descriptors) == nil {
			taken++
		}
		if m.Acquire(Descriptors) == nil {
			t.Fatal("two of one connection")
		}
	}
	other := s.Join("uid 2")
	if err := other.Acquire(Descriptors); taken != 75 || err != nil {
		t.Errorf("one tenant has %d, and another one: %v", taken, err)
	}
	other.Release(Descriptors)
	if err := other.Acquire(Descriptors); err != nil {
		t.Error(err)
	}
}
