package engine_test

import (
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestRing checks that a host that is alone owns every key, and that RING refuses a
// namespace that no other request could name.
func TestRing(t *testing.T) {
	h := onehost.New(t, onehost.Config{})
	for _, tc := range []struct {
		namespace, want string
		status          wire.Status
	}{
		{"default", "", wire.OK},
		{"never-written", "", wire.OK},
		{"Upper", `namespace "Upper": a name is 1 to 64 of`, wire.BadRequest},
		{"", `namespace "": a name is 1 to 64 of`, wire.BadRequest},
	} {
		r := h.Do(wire.Request{Op: wire.OpRing, Namespace: []byte(tc.namespace), Key: []byte("k")})
		if r.Status != tc.status || !strings.Contains(string(r.Message), tc.want) {
			t.Errorf("RING in namespace %q: %v %q, want %v and %q", tc.namespace, r.Status, r.Message, tc.status, tc.want)
		}
		var p cachesidecar.Place
		if r.Status != wire.OK {
			continue
		}
		if err := wire.UnmarshalBody(r.Body, &p); err != nil || p.Owner != "host" || p.AssignedOwner != "host" {
			t.Errorf("RING in namespace %q: %+v, %v", tc.namespace, p, err)
		}
	}
}
