package hosts

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

func leaseOf(key string, timeout time.Duration) *wire.Request {
	return &wire.Request{Op: wire.OpLease, Key: b(key), TimeoutMS: uint32(timeout.Milliseconds())}
}

func leaseTime(d time.Duration) Config {
	return Config{Namespaces: map[string]Namespace{DefaultNamespace: {LeaseTime: d}}}
}

// An app may end its connection as soon as it has sent a FILL. The token belongs to that
// FILL, and is not given back before it.
func TestFillAtTheEnd(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	a, o := twoHosts(t, Config{Socket: filepath.Join(t.TempDir(), "s")})
	view := dial(t, a.Sidecar)
	for _, key := range keysIn(o.Sidecar, DefaultNamespace, "k", true, 25) {
		c := dial(t, a.Sidecar)
		token := c.call(leaseOf(key, time.Minute)).Token
		c.send(&wire.Request{Op: wire.OpFill, Key: b(key), Token: token, Value: b("v"), TTLMS: wire.TTLDefault})
		c.nc.Close()
		testenv.Eventually(t, key+" is filled", func() bool {
			return view.call(&wire.Request{Op: wire.OpGet, Key: b(key)}).Status == wire.OK
		})
	}
}

// An app that dies while it waits for tokens of another host's keys leaves no token
// behind, even if its death is known before a token comes. The next client in line gets
// the token.
func TestDeadAppLeavesNoToken(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 800*time.Millisecond)
	cfg := leaseTime(5 * time.Minute)
	cfg.Socket = filepath.Join(t.TempDir(), "s")
	a, o := twoHosts(t, cfg)
	keys := keysIn(o.Sidecar, DefaultNamespace, "k", true, 2)
	holder, dead, live := dial(t, o.Sidecar), dial(t, a.Sidecar), dial(t, o.Sidecar)
	var tokens [2][]byte
	for i, k := range keys {
		tokens[i] = holder.call(leaseOf(k, time.Minute)).Token
		dead.send(leaseOf(k, 10*time.Minute))
	}
	testenv.Eventually(t, "both wait", func() bool { return o.engine.LeaseTokens.Stats().Waiting == 2 })
	dead.nc.Close()
	abandon := func(i int) {
		t.Helper()
		r := holder.call(&wire.Request{Op: wire.OpFill, Key: b(keys[i]), Token: tokens[i], Options: wire.Abandon})
		if r.Status != wire.OK {
			t.Fatalf("abandon: %s %s", r.Status, r.Message)
		}
	}
	abandon(0) // its answer finds that the connection has ended
	testenv.Eventually(t, "its token is given back", func() bool { return o.engine.LeaseTokens.Stats().Out == 1 })
	live.send(leaseOf(keys[1], 20*time.Second))
	testenv.Eventually(t, "the next one waits", func() bool { return o.engine.LeaseTokens.Stats().Waiting == 2 })
	abandon(1)
	if r := live.receive(wire.OpLease); r.Status != wire.Lease {
		t.Errorf("the next in line: %s %s, want a token", r.Status, r.Message)
	}
}
