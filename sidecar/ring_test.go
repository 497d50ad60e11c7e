package sidecar

import (
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// RING refuses a namespace that no other request could name.
func TestRingChecksNamespace(t *testing.T) {
	s, err := New(Config{L2Size: 8 << 20, NoSocket: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.engine.Store.Close()
	for _, tc := range []struct {
		namespace, want string
		status          wire.Status
	}{
		{"default", "", wire.OK},
		{"never-written", "", wire.OK},
		{"Upper", `namespace "Upper": a name is 1 to 64 of`, wire.BadRequest},
		{"", `namespace "": a name is 1 to 64 of`, wire.BadRequest},
	} {
		r := s.engine.Hosts.Ring(&wire.Request{Op: wire.OpRing, Namespace: []byte(tc.namespace), Key: []byte("k")})
		if r.Status != tc.status || !strings.Contains(string(r.Message), tc.want) {
			t.Errorf("RING in namespace %q: %v %q, want %v and %q", tc.namespace, r.Status, r.Message, tc.status, tc.want)
		}
	}
}
