package quota

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// take takes places for an account until none is left to it, and returns how many.
func take(a *Account, r Resource) (n int64) {
	for a.Acquire(r) == nil {
		n++
	}
	return n
}

// TestSharesLeaveRoom: one connection alone gets seven eighths of the places. Another connection, another process of
// its user and another user get some of the rest, each more than the one before.
func TestSharesLeaveRoom(t *testing.T) {
	for r := range Resources {
		t.Run(resourceNames[r], func(t *testing.T) {
			b := NewBudget(0)
			b.SetTotal(r, 1024)
			var got [4]int64
			for i, of := range [4][2]string{{"uid 1", "pid 1"}, {"uid 1", "pid 1"}, {"uid 1", "pid 2"}, {"uid 2", "pid 3"}} {
				got[i] = take(b.Open(of[0], of[1]), r)
			}
			want := [4]int64{896, 8, 10, 13}
			switch r {
			case Connections: // some are kept for administrators
				want = [4]int64{882, 8, 10, 12}
			case Namespaces, Flushes:
				want = [4]int64{768, 96, 72, 66}
			}
			if got != want {
				t.Errorf("they got %v, want %v", got, want)
			}
			other := b.Open("uid 3", "pid 4")
			n := take(other, r)
			text := fmt.Sprintf("of 1024 places uid 3 holds %d, pid 4 of it %d, this connection %d: ", n, n, n)
			if err := other.Acquire(r); err == nil || err.Status != wire.Busy || !strings.HasPrefix(err.Message, text) {
				t.Errorf("got %v, want %s…", err, text)
			}
			if st := b.Shares()[r]; st.Refused != 6 || st.Most != "uid 1" || st.MostBy != got[0]+got[1]+got[2] {
				t.Errorf("%+v", st)
			}
		})
	}
}

// TestPlaceForWhoHasNone: users that each take all connections they get, with many processes, leave some for many more
// users, and for administrators behind all.
func TestPlaceForWhoHasNone(t *testing.T) {
	for total, users := range map[int64]int{64: 5, 1000: 20, 16_384: 45} {
		b := NewBudget(0)
		b.SetTotal(Connections, total)
		connect := func(uid, pid int) bool {
			a := b.Open(App{uid, pid}.Names(""))
			err := a.Acquire(Connections)
			if err != nil {
				a.Close()
			}
			return err == nil
		}
		for uid := range users {
			got := 0
			for pid := range int(2 * total) { // each its own process
				if connect(uid, uid<<16+pid+1) {
					got++
				} else if got == 0 || pid > got+50 {
					break
				}
			}
			if got == 0 {
				t.Fatalf("of %d places user %d finds none", total, uid)
			}
		}
		for connect(users, 1) {
			users++
		}
		root := b.Open("root", "")
		if root.Acquire(Connections) == nil {
			t.Errorf("of %d none is kept for administrators", total)
		}
		root.Administers = true
		if err := root.Acquire(Connections); err != nil {
			t.Errorf("an administrator: %v", err)
		}
	}
}

// TestFairShareAgain: what the largest user gives back, another one gets until it has its fair share.
func TestFairShareAgain(t *testing.T) {
	b := NewBudget(0)
	b.SetTotal(Waiting, 800)
	hog, other := b.Open("uid 1", "pid 1"), b.Open("uid 2", "pid 2")
	n, m := take(hog, Waiting), take(other, Waiting)
	for range 800 {
		hog.Release(Waiting)
		m += take(other, Waiting)
		if n--; hog.Acquire(Waiting) == nil {
			n++
		}
	}
	if n+m > 800 || m < 350 {
		t.Errorf("they have %d and %d", n, m)
	}
}

// TestLastPlaceForgetsTenant: a tenant whose names and tokens outlive its connections is
// forgotten with the last of them.
func TestLastPlaceForgetsTenant(t *testing.T) {
	b := NewBudget(0)
	b.SetTotal(Namespaces, 10)
	a := b.Open("uid 1", "pid 1")
	if err := a.Acquire(Namespaces); err != nil {
		t.Fatal(err)
	}
	if a.Close(); b.root.named["uid 1"] == nil {
		t.Error("a tenant that has a name is forgotten")
	}
	again := b.Open("uid 1", "pid 1")
	if again.up != a.up {
		t.Error("what the process has does not count for its next connection")
	}
	if again.Close(); b.root.named["uid 1"] == nil {
		t.Error("a tenant that has a name is forgotten with its next connection")
	}
	if a.Release(Namespaces); b.root.named["uid 1"] != nil {
		t.Error("a tenant that has nothing is remembered")
	}
}

// TestAppNumber: an app's number names it on another host, and is never that of a host itself.
func TestAppNumber(t *testing.T) {
	for _, app := range []App{{}, {0, 1}, {User: 1}, {Nobody, 1 << 22}, {1<<32 - 2, 7}} {
		if n := app.Number(); n == 0 || AppOf(n) != app {
			t.Errorf("%+v has the number %d, of %+v", app, n, AppOf(n))
		}
	}
	if tenant, process := (App{7, 8}).Names("a"); tenant != "node a uid 7" || process != "pid 8" {
		t.Error(tenant, process)
	}
}
