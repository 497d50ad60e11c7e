package main

import (
	"io"
	"strings"
	"testing"
)

func TestKinds(t *testing.T) {
	for _, args := range [][]string{{}, {"memcached"}, {"olric", "sidecar"}} {
		if err := run(t.Context(), args, strings.NewReader(""), io.Discard); err == nil || !strings.Contains(err.Error(), "give groupcache, olric or sidecar") {
			t.Errorf("%q: got error %v", args, err)
		}
	}
}
