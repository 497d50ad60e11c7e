package sidecar

import (
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader/httporigin"
)

// TestEffectiveIsRight: what Effective returns can be given again, also where a default
// follows from another setting.
func TestEffectiveIsRight(t *testing.T) {
	for _, rate := range []float64{0, 1e-3, 1, 1e9} {
		c := Config{L2Size: 8 << 20, Namespaces: map[string]Namespace{
			"n": {Origin: &httporigin.Config{URL: "http://127.0.0.1:1/{key}"}, Limits: Limits{Rate: rate}},
		}}
		testenv.Must(t, c.Check())
		e, err := c.Effective()
		testenv.Must(t, err)
		if err := e.Check(); err != nil {
			t.Errorf("with a rate of %v: %v", rate, err)
		}
	}
}
