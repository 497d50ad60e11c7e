package main

import (
	"encoding/json"
	"regexp"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func TestPing(t *testing.T) {
	serveHere(t)
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"ping"}, `host1 \(cachesidecar test\): [0-9.]+.s\n`},
		{[]string{"ping", "--count", "3"},
			`host1 \(cachesidecar test\): 3 round trips, min [0-9.]+.?s, mean [0-9.]+.?s, max [0-9.]+.?s\n`},
	} {
		if got := mustRun(t, tc.args...); !regexp.MustCompile("^" + tc.want + "$").MatchString(got) {
			t.Errorf("%q: %q, want %q", tc.args, got, tc.want)
		}
	}
	var r pinged
	testenv.Must(t, json.Unmarshal([]byte(mustRun(t, "ping", "-c", "100", "--json")), &r))
	if r.Node != "host1" || r.Version != "test" || r.Count != 100 || r.MinUS > r.MeanUS || r.MeanUS > r.MaxUS || r.MaxUS == 0 {
		t.Errorf("%+v", r)
	}
}
