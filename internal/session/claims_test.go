package session_test

import (
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/doors"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// claimOf is a METAGET that claims a key for an hour.
func claimOf(key string) wire.Request {
	return wire.Request{
		Op: wire.OpMetaGet, Key: []byte(key), TTLMS: wire.TTLDefault, Options: wire.Claim | wire.Create,
		LeaseMS: uint32(time.Hour.Milliseconds()),
	}
}

// TestClaimComesBack: a claim ends with its connection, and its holder can give it back before. A LEASE that waits for
// the holder gets a token at once.
func TestClaimComesBack(t *testing.T) {
	for what, end := range map[string]func(c *doors.Conn, number uint64){
		"the connection ends": func(c *doors.Conn, _ uint64) { c.Close() },
		"it is given back": func(c *doors.Conn, number uint64) {
			onehost.Is(t, "FILL", c.Call(wire.Request{
				Op: wire.OpFill, Key: []byte("k"), Token: wire.ClaimToken(number), Options: wire.Abandon, TTLMS: wire.TTLDefault,
			}), wire.OK, "")
		},
	} {
		t.Run(what, func(t *testing.T) {
			doors.Virtually(t, longLeases, func(t *testing.T, h *doors.Host) {
				holder, live := h.App(), h.App()
				r := holder.Call(claimOf("k"))
				if r.Claim != wire.ClaimWon {
					t.Fatalf("%s, claim %d", r.Status, r.Claim)
				}
				live.Begin(doors.LeaseOf("k", 10*time.Minute))
				settle()
				end(holder, uint64(r.Number))
				handedOver(t, live)
				if n := h.Budget.Taken(quota.LeaseTokens); n != 1 {
					t.Errorf("%d places are taken, want that of the next one", n)
				}
			})
		})
	}
}

// TestUsedClaimIsForgotten: a connection remembers only so many claims, and those that a SET has used are not among them.
func TestUsedClaimIsForgotten(t *testing.T) {
	doors.Virtually(t, longLeases, func(t *testing.T, h *doors.Host) {
		holder := h.App()
		for range 4200 {
			r := holder.Call(claimOf("k"))
			onehost.Is(t, "SET", holder.Call(wire.Request{
				Op: wire.OpSet, Key: []byte("k"), Value: []byte("v"), TTLMS: 1, Mode: wire.ModeCAS, Compare: uint64(r.Number),
			}), wire.OK, "")
			time.Sleep(2 * time.Millisecond)
		}
		holder.Call(claimOf("k"))
		holder.Close()
		settle()
		if n := h.Budget.Taken(quota.LeaseTokens); n != 0 {
			t.Errorf("%d claims are left", n)
		}
	})
}

// TestAppIsNoOther: an app cannot ask in the name of another one.
func TestAppIsNoOther(t *testing.T) {
	doors.Virtually(t, longLeases, func(t *testing.T, h *doors.Host) {
		q := doors.LeaseOf("k", time.Minute)
		q.By = quota.App{User: 7, Process: 1}.Number()
		onehost.Is(t, "a LEASE", h.App().Call(q), wire.Unsupported, "")
		if h.Budget.Taken(quota.LeaseTokens) != 0 {
			t.Error("it has a token")
		}
	})
}
