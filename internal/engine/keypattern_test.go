package engine_test

import (
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// TestKeyPattern checks that a key outside of key_pattern is neither written nor loaded, whether apps or an
// origin load, at every door, and that reads and deletions of it do no harm.
func TestKeyPattern(t *testing.T) {
	byBoth(t, func(t *testing.T, by func(*onehost.Host) asks) {
		for name, origin := range map[string]loader.OriginConfig{
			"apps load": nil, "an origin": onehost.NewOrigin(0).ReadOnly(),
		} {
			h := loading(t, onehost.NewOrigin(0), func(s *namespaces.Settings) {
				s.KeyPattern, s.Origin = "0|[1-9][0-9]*", origin
			})
			do := by(h)
			token := do(wire.Request{Op: wire.OpLease, Key: []byte("42")}).Token
			for what, tc := range map[string]struct {
				q    wire.Request
				want wire.Status // of the key 043
			}{
				"SET":    {wire.Request{Op: wire.OpSet}, wire.BadRequest},
				"add":    {wire.Request{Op: wire.OpSet, Mode: wire.ModeAdd}, wire.BadRequest},
				"append": {wire.Request{Op: wire.OpSet, Mode: wire.ModeAppend, Options: wire.Create}, wire.BadRequest},
				"CAS":    {wire.Request{Op: wire.OpSet, Mode: wire.ModeCAS, Compare: 7}, wire.BadRequest},
				"INCR":   {wire.Request{Op: wire.OpIncr, Delta: 1, Create: true}, wire.BadRequest},
				"TOUCH":  {wire.Request{Op: wire.OpTouch}, wire.BadRequest},
				"FILL":   {wire.Request{Op: wire.OpFill, Token: token}, wire.BadRequest},
				"LEASE":  {wire.Request{Op: wire.OpLease}, wire.BadRequest},
				"a claim": {
					wire.Request{Op: wire.OpMetaGet, TTLMS: wire.TTLDefault, Options: wire.Claim | wire.Create}, wire.BadRequest,
				},
				"DELETE": {wire.Request{Op: wire.OpDelete}, wire.OK},
			} {
				tc.q.Key, tc.q.Value = []byte("043"), []byte("v")
				if tc.q.Op == wire.OpDelete {
					tc.q.Keys = [][]byte{tc.q.Key}
				}
				if tc.q.Op != wire.OpSet && tc.q.Op != wire.OpFill {
					tc.q.Value = nil
				}
				r := do(tc.q)
				if r.Status != tc.want {
					t.Errorf("%s, %s: %s %s, want %s", name, what, r.Status, r.Message, tc.want)
				}
				if m := string(r.Message); tc.want == wire.BadRequest &&
					(!strings.Contains(m, `key "043"`) || !strings.Contains(m, `key_pattern "0|[1-9][0-9]*"`)) {
					t.Errorf("%s, %s: %q does not name key and pattern", name, what, m)
				}
			}
			if r := h.Abandon("043", token); r.Status == wire.BadRequest { // it may have been given before a reload
				t.Errorf("%s: the return of a token: %s", name, r.Message)
			}
			want := wire.Miss
			if origin != nil {
				want = wire.BadRequest
			}
			if r := do(wire.Request{Op: wire.OpGet, Key: []byte("043")}); r.Status != want {
				t.Errorf("%s: GET: %s %s, want %s", name, r.Status, r.Message, want)
			}
			onehost.Is(t, "SET of a good key", do.set("43", "v"), wire.OK, "")
			onehost.Is(t, "GET of a good key", do.get("43", 0), wire.OK, "v")
		}
	})
}
