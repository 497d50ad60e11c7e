package settings

import (
	"errors"
	"io/fs"
	"testing"
)

// TestProblems checks the path and the text of problems, alone and within others.
func TestProblems(t *testing.T) {
	var wrong Problems
	wrong.Addf("quota", "%d B: give more", 1)
	wrong.Add(Within("origin.http", errors.Join(Problemf("url", ": it has a password"), fs.ErrNotExist, nil)))
	wrong.Add(Within("limits", Within("breaker", Bounded("open", 7, 1, 5))))
	wrong.Add(Problemf("http", "%s is not loopback", ":1"))
	wrong.Add(Problemf("", "no host has one"))
	wrong.Add(Within("", nil))
	for i, want := range []struct{ setting, text string }{
		{"namespaces.a b.quota", `"namespaces.a b.quota" 1 B: give more`},
		{"namespaces.a b.origin.http.url", `"namespaces.a b.origin.http.url": it has a password`},
		{"namespaces.a b.origin.http", `"namespaces.a b.origin.http": file does not exist`},
		{"namespaces.a b.limits.breaker.open", `"namespaces.a b.limits.breaker.open" 7: give 1 to 5`},
		{"namespaces.a b.http", `"namespaces.a b.http" :1 is not loopback`},
		{"namespaces.a b", `"namespaces.a b": no host has one`},
	} {
		list := Each(Within("namespaces.a b", wrong.Err()))
		var p *Problem
		if len(list) != 6 || !errors.As(list[i], &p) || p.Setting != want.setting || p.Error() != want.text {
			t.Errorf("%d of %d: %v, want %v", i, len(list), list[i], want)
		}
	}
	if err := wrong.Err(); !errors.Is(err, fs.ErrNotExist) || Each(err)[0].Error() != "quota 1 B: give more" {
		t.Errorf("%v", err)
	}
}
