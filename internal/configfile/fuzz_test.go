package configfile

import (
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// FuzzConfig checks that any configuration file is either refused with a reason, or
// parsed and then judged by Check. Nothing panics or takes long.
func FuzzConfig(f *testing.F) {
	testenv.ReadsClock(f, testenv.Patience, "no file takes long, whatever it has")
	for _, tc := range badConfigs {
		if len(tc.text) < 1<<12 {
			f.Add([]byte(tc.text))
		}
	}
	f.Add([]byte("node: a\nl1_size: 1GiB\nnamespaces:\n  a: &a {default_ttl: 5m, quota: 1MiB}\n  b: *a\n  c: {<<: *a, quota: 2MiB}\n"))
	f.Add([]byte("a0: &a0 [x, x]\na1: &a1 [*a0, *a0]\nnode: *a1\n"))
	for _, example := range docExamples(f) {
		f.Add([]byte(withFiles(f, example)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		start := time.Now()
		cfg, err := parsed(b)
		if took := time.Since(start); took > testenv.Patience {
			t.Errorf("took %v", took)
		}
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without a word")
			}
			return
		}
		if _, err := cfg.LogOptions(false); err != nil && err.Error() == "" {
			t.Error("an error without a word")
		}
		if err := cfg.Check(); err != nil && err.Error() == "" {
			t.Error("an error without a word")
		}
		if took := time.Since(start); took > testenv.Patience {
			t.Errorf("checking took %v", took)
		}
	})
}
