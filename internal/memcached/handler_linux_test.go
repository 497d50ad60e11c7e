package memcached_test

import (
	"os"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/doors"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
)

// TestUsersOverTCP: the connections of a client over TCP are its user's, as those over a Unix socket are.
func TestUsersOverTCP(t *testing.T) {
	h := doors.Serve(t, onehost.Config{})
	for _, network := range []string{"unix", "tcp"} {
		h.TextOver(network).Ask("version", "VERSION 1.6.18")
	}
	want := quota.UserTenant(os.Getuid())
	if st := h.Budget.Shares()[quota.Connections]; st.Most != want || st.MostBy != 2 {
		t.Errorf("%+v, want 2 of %s", st, want)
	}
}
