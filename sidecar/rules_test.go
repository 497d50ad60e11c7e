package sidecar

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/verify"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// tokenFile writes a token to a file.
func tokenFile(t testing.TB, name, secret string) Token {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	testenv.Must(t, os.WriteFile(path, []byte(secret+"\n"), 0o600))
	return Token{File: path}
}

const webSecret, reportSecret = "0123456789abcdef-web", "0123456789abcdef-report"

// An error about the rules names the wrong part and the remedy.
func TestAccessRefused(t *testing.T) {
	many := map[string]Grants{}
	for i := range 257 {
		many[fmt.Sprint("n", i)] = Grants{Read: []string{}}
	}
	manyTokens := map[string]Token{}
	for i := range 257 {
		manyTokens[fmt.Sprint("n", i)] = Token{File: "/none"}
	}
	line := func(who ...string) Config { return Config{Access: map[string]Grants{"users": {Write: who}}} }
	open := tokenFile(t, "open", webSecret)
	testenv.Must(t, os.Chmod(open.File, 0o644))
	for _, tc := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no such user", line("user:no-such-user"), `access.users.write: there is no user "no-such-user" here: create it, or give a number`},
		{"no such group", line("group:no-such-group"), `access.users.write: there is no group "no-such-group" here`},
		{"no such token", line("token:web"), "access.users.write: token:web: there is no such token: name its file under tokens"},
		{"no such group of administrators", Config{AdminGroup: "no-such-group"}, `admin_group: there is no group "no-such-group" here`},
		{"a bare word", line("web"), `"web": give user:NAME, group:NAME, token:NAME, the number of a user, memcached, or anyone`},
		{"another kind", line("role:web"), `"role:web": give user:NAME`},
		{"an empty name", line("user:"), `"user:": give user:NAME`},
		{"a star", line("*"), `"*": give user:NAME`},
		{"a number that is none", line("-1"), `"-1": give user:NAME`},
		{"the number of nobody at all", line("4294967295"), `give user:NAME`},
		{"a blank", line("user: web"), `give user:NAME`},
		{"too many", line(slices.Repeat([]string{"1"}, 1025)...), "access.users.write has 1025 entries: give at most 1024"},
		{"nothing", Config{Access: map[string]Grants{"users": {}}}, "access.users: say who may read, write or admin it; [] means no user"},
		{"a bad name", Config{Access: map[string]Grants{"Users": {Read: []string{}}}}, `access.Users: a namespace's name is 1 to 64`},
		{"a reserved name", Config{Access: map[string]Grants{verify.Namespace: {Read: []string{}}}}, "access._verify is reserved"},
		{"too many lines", Config{Access: many}, "access names 257 namespaces: give at most 256"},
		{"too many tokens", Config{Tokens: manyTokens}, "tokens: there are 257: give at most 256"},
		{"a token without a file", Config{Tokens: map[string]Token{"web": {}}}, "tokens.web.file: give the path of a file"},
		{"a short token", Config{Tokens: map[string]Token{"web": tokenFile(t, "a", "0123456789abcde")}}, "a token is one line of 16 to 256 bytes: make one with"},
		{"a long token", Config{Tokens: map[string]Token{"web": tokenFile(t, "a", strings.Repeat("x", 257))}}, "a token is one line"},
		{"two lines", Config{Tokens: map[string]Token{"web": tokenFile(t, "a", webSecret+"\n"+webSecret)}}, "a token is one line"},
		{"a file for all", Config{Tokens: map[string]Token{"web": open}}, "tokens.web.file " + open.File + ": it contains a secret and has mode 0644"},
		{"one secret twice", Config{Tokens: map[string]Token{"a": tokenFile(t, "a", webSecret), "b": tokenFile(t, "b", webSecret)}}, "tokens: a and b are the same secret"},
		{"a secret for a name", Config{Tokens: map[string]Token{"S3CRET": {}}}, "tokens: a name is 1 to 64"},
	} {
		for how, err := range map[string]error{"Check": tc.cfg.Check(), "New": func() error { _, err := New(tc.cfg); return err }()} {
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), webSecret) || strings.Contains(err.Error(), "S3CRET") {
				t.Errorf("%s: %s: %v, want %q", how, tc.name, err, tc.want)
			}
		}
	}
}

// sessionOf99 returns a session of user 99 that is used for decisions only.
func sessionOf99(t *testing.T, cfg Config) *session.Handler {
	t.Helper()
	cfg.Node, cfg.NoSocket, cfg.L2Size, cfg.Log = "a", true, 8<<20, slog.New(slog.DiscardHandler)
	s, err := New(cfg)
	testenv.Must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Run(ctx)
	})
	peer := unixsock.Peer{UID: 99, GID: 99}
	return s.sessions.Of(s.engine.Access.Caller(peer), nil)
}

// What a connection may do depends on the namespace of the request, on its rules, and on
// the token that the connection has shown last. Earlier requests do not matter.
func TestDecisions(t *testing.T) {
	may := func(c *session.Handler, op wire.Op, namespace string, options wire.Options, want bool) {
		t.Helper()
		if err := c.Refusal(&wire.Request{Op: op, Namespace: []byte(namespace), Options: options, App: true}); (err == nil) != want {
			t.Errorf("%s in %q, options %d: %v, want that it may: %v", op, namespace, options, err, want)
		}
	}
	// There is a line for users and none for "*": other namespaces behave as without
	// rules.
	c := sessionOf99(t, Config{Access: map[string]Grants{"users": {Write: []string{"99"}}}})
	may(c, wire.OpSet, "users", 0, true)
	may(c, wire.OpFlush, "users", 0, false)
	may(c, wire.OpFlush, "default", 0, true)
	may(c, wire.OpFlush, "default", wire.All, false)
	may(c, wire.OpWatch, "", wire.All, true)

	// A decision is about the namespace of the request, not about the namespace used
	// last.
	c = sessionOf99(t, Config{
		Namespaces: map[string]Namespace{"open": {}, "users": {}},
		Access:     map[string]Grants{"open": {Write: []string{"anyone"}}, Others: {Write: []string{"5"}}},
	})
	for _, name := range []string{"open", "users", "open"} {
		c.Names.Read([]byte(name))
		may(c, wire.OpGet, "open", 0, true)
		may(c, wire.OpGet, "users", 0, false)
	}

	// WATCH of all namespaces requires the right to read at least one.
	c = sessionOf99(t, Config{Access: map[string]Grants{"users": {Write: []string{"5"}}, Others: {Write: []string{"5"}}}})
	may(c, wire.OpWatch, "", wire.All, false)

	// A token grants its rights until another token is shown, or none.
	c = sessionOf99(t, Config{
		Tokens: map[string]Token{"web": tokenFile(t, "web", webSecret), "report": tokenFile(t, "report", reportSecret)},
		Access: map[string]Grants{"users": {Write: []string{"token:web"}}, Others: {Read: []string{"token:report"}}},
	})
	for _, tc := range []struct {
		secret      string
		write, read bool
	}{{webSecret, true, false}, {reportSecret, false, true}, {"", false, false}, {webSecret, true, false}, {"", false, false}} {
		if err := c.By.Show(tc.secret); err != nil {
			t.Fatal(err)
		}
		may(c, wire.OpSet, "users", 0, tc.write)
		may(c, wire.OpGet, "default", 0, tc.read)
		may(c, wire.OpSet, "default", 0, false) // "*" grants only Read
	}
	if err := c.By.Show("no such secret, no such secret"); err == nil || c.By.Ended == nil {
		t.Errorf("a token that there is not: %v, ends with %v", err, c.By.Ended)
	}
}

// A decision allocates nothing, whether the namespace has a slot or not.
func TestDecisionAllocatesNothing(t *testing.T) {
	c := sessionOf99(t, Config{Access: map[string]Grants{"users": {Read: []string{"99"}}, "orders": {Write: []string{"99"}}}})
	for _, name := range []string{"users", "orders", "default", "never-named"} {
		q := &wire.Request{Op: wire.OpGet, Namespace: []byte(name), App: true}
		testenv.Allocates(t, name, 0, 100, func() {
			if err := c.Refusal(q); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func BenchmarkDecision(b *testing.B) {
	a, err := (&Config{Access: map[string]Grants{"users": {Read: []string{"99"}}, "orders": {Write: []string{"99"}}}}).rules()
	testenv.Must(b, err)
	peer := unixsock.Peer{UID: 99, GID: 99}
	for name, list := range map[string][]string{"one name": {"users"}, "two in turn": {"users", "orders"}} {
		b.Run(name, func(b *testing.B) {
			c := session.New(session.Config{Engine: &engine.Engine{Access: a}}).Of(a.Caller(peer), nil)
			q := &wire.Request{Op: wire.OpGet, App: true}
			for i := 0; b.Loop(); i++ {
				q.Namespace = append(q.Namespace[:0], list[i%len(list)]...)
				if c.Refusal(q) != nil {
					b.Fatal("refused")
				}
			}
		})
	}
}
