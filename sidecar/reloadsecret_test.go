package sidecar

import (
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/loader/execorigin"
	"github.com/cachesidecar/cachesidecar/loader/httporigin"
)

// TestReloadHidesSecrets: what a reload says about changes has no secrets, also those that
// people put where none belong. "config show" hides the same ones.
func TestReloadHidesSecrets(t *testing.T) {
	of := func(secret string) map[string]Namespace {
		return map[string]Namespace{
			"pages": {Origin: &httporigin.Config{
				URL:     "http://127.0.0.1:1/{key}?v=1&token=" + secret,
				Headers: map[string]string{"X-Api-Key": "/" + secret, "Accept": "text/" + secret[:1]},
			}},
			"script": {Origin: &execorigin.Config{
				Command: []string{"/bin/echo", "postgres://u:" + secret + "@h/db"},
				Env:     []string{"LANG=C", "DB_PASSWORD=" + secret},
			}},
		}
	}
	r := newReloaded(t, Config{Namespaces: of("first-secret")})
	changed, _ := r.apply(func(c *Config) { c.Namespaces = of("second-secret") })
	all := strings.Join(changed, "\n")
	if strings.Contains(all, "-secret") || strings.Count(all, "(hidden)") != 8 {
		t.Errorf("a reload says:\n%s", all)
	}
	if want := "namespaces.pages.origin.http.headers.Accept: text/f → text/s"; !strings.Contains(all, want) {
		t.Errorf("a reload does not say %q:\n%s", want, all)
	}
}
