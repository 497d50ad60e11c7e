package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

func TestTTL(t *testing.T) {
	serveHere(t)
	mustRun(t, "set", "short", "1", "--ttl", "10m")
	mustRun(t, "set", "eternal", "1", "--ttl", "0")
	for _, tc := range []struct {
		line   string
		status int
		out    string
		err    string
	}{
		{"ttl short", exitDone, `(10m|9m5\ds)\n`, ""},
		{"ttl eternal", exitDone, `no expiry\n`, ""},
		{"ttl none", exitMiss, ``, "none: not found\n"},
		{"ttl short none eternal", exitMiss, `short\t(10m|9m5\ds)\neternal\tno expiry\n`, "none: not found\n"},
		{"ttl short --ns other", exitMiss, ``, "short: not found\n"},
	} {
		o := command(t, "", strings.Fields(tc.line)...)
		if o.status != tc.status || !regexp.MustCompile("^"+tc.out+"$").MatchString(o.out) || o.err != tc.err {
			t.Errorf("%s: %v\nwant status %d, %q and %q", tc.line, o, tc.status, tc.out, tc.err)
		}
	}
}

// TestTTLAsksNoOrigin checks that ttl does not load a missing value, and get does.
func TestTTLAsksNoOrigin(t *testing.T) {
	o := serveOrigin(t, sidecar.Namespace{})
	for _, args := range [][]string{{"ttl", "k1", "--ns", "users"}, {"ttl", "k1", "k2", "--ns", "users"}} {
		if got := command(t, "", args...); got.status != exitMiss || len(o.asked) != 0 {
			t.Errorf("%q: %v, and the origin was asked %d times", args, got, len(o.asked))
		}
	}
	mustRun(t, "get", "k1", "--ns", "users")
	if len(o.asked) != 1 {
		t.Errorf("get: the origin was asked %d times, want 1", len(o.asked))
	}
	if got := mustRun(t, "ttl", "k1", "--ns", "users"); got == "" {
		t.Error("no TTL after the load")
	}
}

func TestTimeLeft(t *testing.T) {
	for ttl, want := range map[time.Duration]string{
		0:                                      "no expiry",
		time.Microsecond:                       "0s",
		time.Millisecond + time.Microsecond:    "1ms",
		999 * time.Millisecond:                 "999ms",
		time.Second:                            "1s",
		61*time.Second + 500*time.Millisecond:  "1m1s",
		time.Hour:                              "1h",
		8760 * time.Hour:                       "365d",
		49*time.Hour + 3*time.Second:           "2d1h3s",
		24*time.Hour - time.Millisecond:        "23h59m59s",
		7*24*time.Hour + 59*time.Minute:        "7d59m",
		time.Duration(1<<63 - 1).Round(1 << 3): "106751d23h47m16s",
	} {
		if got := timeLeft(ttl); got != want {
			t.Errorf("%v: %q, want %q", ttl, got, want)
		}
	}
}

// TestVersionsInJSON checks that a reader of JSON whose numbers are floating-point, as
// those of jq are, gets the exact version for set --cas.
func TestVersionsInJSON(t *testing.T) {
	serveHere(t)
	version := func(line ...string) string {
		var floating map[string]any
		testenv.Must(t, json.Unmarshal([]byte(mustRun(t, append(line, "--json")...)), &floating))
		v, ok := floating["version"].(string)
		if !ok {
			t.Fatalf("%q: the version is %T %v, want a string", line, floating["version"], floating["version"])
		}
		return v
	}
	set := version("set", "k", "1")
	if got := version("get", "k"); got != set {
		t.Errorf("get prints the version %s, and set %s", got, set)
	}
	mustRun(t, "set", "k", "2", "--cas", set)
	if o := command(t, "", "set", "k", "3", "--cas", set); o.status != exitMiss {
		t.Errorf("the version of an overwritten value: %v", o)
	}
}

// TestAliases checks that the other names of commands do the same.
func TestAliases(t *testing.T) {
	serveHere(t)
	mustRun(t, "set", "a", "1")
	mustRun(t, "set", "b", "2")
	if got := mustRun(t, "mget", "a", "b"); got != "a\t1\nb\t2\n" {
		t.Errorf("mget: %q", got)
	}
	mustRun(t, "delete", "a", "--soft")
	mustRun(t, "rm", "b")
	if o := command(t, "", "mget", "a", "b"); o.status != exitMiss || o.out != "" {
		t.Errorf("after delete and rm: %v", o)
	}
}
