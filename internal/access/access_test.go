package access

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// tokenFile makes a file with a token.
func tokenFile(t testing.TB, name, secret string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	testenv.Must(t, os.WriteFile(path, []byte(secret+"\n"), 0o600))
	return path
}

const webSecret, reportSecret = "0123456789abcdef-web", "0123456789abcdef-report"

// TestEntitled: each principal has its rights in its namespaces, and none in others.
func TestEntitled(t *testing.T) {
	own := os.Geteuid()
	a, err := read(Config{
		AdminGroup: "77",
		Tokens:     map[string]string{"web": tokenFile(t, "web", webSecret), "report": tokenFile(t, "report", reportSecret)},
		Namespaces: map[string]Grants{
			"users":  {Read: []string{"group:20", "user:10"}, Write: []string{"11"}, Admin: []string{"user:12"}},
			"orders": {Read: []string{"anyone"}, Write: []string{"group:21", "token:web"}},
			"closed": {Read: []string{}},
			Others:   {Read: []string{"10", "token:report"}, Write: []string{"10"}},
		},
	})
	testenv.Must(t, err)
	for _, tc := range []struct {
		name                          string
		peer                          unixsock.Peer
		token                         string
		users, orders, closed, others Right
		admin                         bool
	}{
		{"a stranger", unixsock.Peer{UID: 99, GID: 99}, "", Nothing, Read, Nothing, Nothing, false},
		{"a user of two lines", unixsock.Peer{UID: 10, GID: 99}, "", Read, Read, Nothing, Write, false},
		{"a number without a word", unixsock.Peer{UID: 11, GID: 99}, "", Write, Read, Nothing, Nothing, false},
		{"an admin of a namespace", unixsock.Peer{UID: 12, GID: 99}, "", Admin, Read, Nothing, Nothing, false},
		{"a group", unixsock.Peer{UID: 99, GID: 20}, "", Read, Read, Nothing, Nothing, false},
		{"supplementary groups", unixsock.Peer{UID: 99, GID: 99, Groups: []int{1, 20, 21}}, "", Read, Write, Nothing, Nothing, false},
		{"a user whose number is a group's", unixsock.Peer{UID: 20, GID: 10}, "", Nothing, Read, Nothing, Nothing, false},
		{"a token", unixsock.Peer{UID: 99, GID: 99}, webSecret, Nothing, Write, Nothing, Nothing, false},
		{"a token adds", unixsock.Peer{UID: 10, GID: 99}, webSecret, Read, Write, Nothing, Write, false},
		{"a token takes nothing", unixsock.Peer{UID: 10, GID: 99}, reportSecret, Read, Read, Nothing, Write, false},
		{"the group of administrators", unixsock.Peer{UID: 99, GID: 77}, "", Admin, Admin, Admin, Admin, true},
		{"one of its groups", unixsock.Peer{UID: 99, GID: 99, Groups: []int{5, 77}}, "", Admin, Admin, Admin, Admin, true},
		{"root", unixsock.Peer{UID: 0, GID: 99}, "", Admin, Admin, Admin, Admin, true},
		{"the sidecar's own user", unixsock.Peer{UID: own, GID: 99}, "", Admin, Admin, Admin, Admin, true},
	} {
		e := a.of(tc.peer)
		if tc.token != "" {
			tok := a.find(sha256.Sum256([]byte(tc.token)))
			if tok == nil {
				t.Fatalf("%s: its token is not known", tc.name)
			}
			e.add(a, tok.grants)
		}
		got := []Right{e.in[a.lines["users"]], e.in[a.lines["orders"]], e.in[a.lines["closed"]], e.in[a.lines["never-named"]]}
		if want := []Right{tc.users, tc.orders, tc.closed, tc.others}; !slices.Equal(got, want) || e.admin != tc.admin {
			t.Errorf("%s: %v, admin %v, want %v, %v", tc.name, got, e.admin, want, tc.admin)
		}
	}
	if want := []Right{Nothing, Nothing, Read, Nothing}; !slices.Equal(a.anyone, want) {
		t.Errorf("what all share was changed: %v, want %v", a.anyone, want)
	}
	for _, shown := range []string{webSecret[:19], webSecret + "x", "", "web"} {
		if a.find(sha256.Sum256([]byte(shown))) != nil {
			t.Errorf("the token %q is taken", shown)
		}
	}
}

// TestEntitledByDefault: without rules, every app that can open the socket may read and
// write.
func TestEntitledByDefault(t *testing.T) {
	a, err := read(Config{})
	testenv.Must(t, err)
	if e := a.of(unixsock.Peer{UID: 99, GID: 99}); e.in[0] != Write || e.admin || a.ruled {
		t.Errorf("%+v", e)
	}
	a, err = read(Config{Namespaces: map[string]Grants{"users": {Admin: []string{"5"}}}})
	testenv.Must(t, err)
	if e := a.of(unixsock.Peer{UID: 99, GID: 99}); e.in[0] != Write || e.in[1] != Nothing {
		t.Errorf("beside a line: %+v", e)
	}
}

// FuzzPrincipal: an entry of the rules is read in one way, or refused with a short error.
func FuzzPrincipal(f *testing.F) {
	for _, s := range []string{"anyone", "user:web", "group:1", "token:a", "1000", "4294967295", "01", "user::", "user:\x00", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		kind, name, err := parsePrincipal(s)
		switch {
		case err != nil:
			if len(err.Error()) > 1000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		case kind == "anyone" && name == "" && s == kind:
		case kind == "user" && name == s:
			if _, ok := idOf(s); !ok {
				t.Errorf("%q is a user without a word", s)
			}
		case kind+":"+name == s && name != "" && slices.Contains([]string{"user", "group", "token"}, kind):
		default:
			t.Errorf("%q: %q, %q", s, kind, name)
		}
	})
}

// TestReplace: connections that are open follow other rules with their next request; a
// token that is not known any more gives no right; the counts go on.
func TestReplace(t *testing.T) {
	rules := func(c Config) *Rules {
		t.Helper()
		a, err := New(c)
		testenv.Must(t, err)
		return a
	}
	tokens := map[string]string{"web": tokenFile(t, "web", webSecret)}
	a := rules(Config{Tokens: tokens, Namespaces: map[string]Grants{
		"aaa": {Read: []string{"5"}}, "users": {Write: []string{"token:web"}}, Others: {Read: []string{}},
	}})
	c := a.Caller(unixsock.Peer{UID: 99, GID: 99})
	may := func(op wire.Op, namespace string, want bool) {
		t.Helper()
		if err, _ := c.Refusal(&wire.Request{Op: op, Namespace: []byte(namespace)}); (err == nil) != want {
			t.Errorf("%s in %s: %v, want that it may: %v", op, namespace, err, want)
		}
	}
	if err := c.Show(webSecret); err != nil {
		t.Fatal(err)
	}
	may(wire.OpSet, "users", true)
	may(wire.OpGet, "orders", false)
	a.Replace(rules(Config{Tokens: tokens, Namespaces: map[string]Grants{
		"orders": {Read: []string{"token:web"}}, "users": {Read: []string{"99"}}, "zzz": {Admin: []string{"99"}},
	}}))
	may(wire.OpSet, "users", false)
	may(wire.OpGet, "users", true)
	may(wire.OpGet, "orders", true) // the token is known still
	may(wire.OpFlush, "zzz", true)
	a.Replace(rules(Config{Namespaces: map[string]Grants{"orders": {Read: []string{"5"}}}}))
	may(wire.OpGet, "orders", false)
	may(wire.OpGet, "users", true)
	if c.Ended != nil {
		t.Errorf("the connection ends with %v", c.Ended)
	}
	if n := a.Refusals()["read"] + a.Refusals()["write"]; n != 3 {
		t.Errorf("%d refusals are counted, want 3: %v", n, a.Refusals())
	}
}
