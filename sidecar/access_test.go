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

	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// tokenFile makes a file with a token.
func tokenFile(t testing.TB, name, secret string) Token {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Token{File: path}
}

const webSecret, reportSecret = "0123456789abcdef-web", "0123456789abcdef-report"

// Each principal of the rules has its rights in its namespaces, and none in others.
func TestEntitled(t *testing.T) {
	own := os.Geteuid()
	a, err := newAccess(&Config{
		AdminGroup: "77",
		Tokens:     map[string]Token{"web": tokenFile(t, "web", webSecret), "report": tokenFile(t, "report", reportSecret)},
		Access: map[string]Grants{
			"users":  {Read: []string{"group:20", "user:10"}, Write: []string{"11"}, Admin: []string{"user:12"}},
			"orders": {Read: []string{"anyone"}, Write: []string{"group:21", "token:web"}},
			"closed": {Read: []string{}},
			Others:   {Read: []string{"10", "token:report"}, Write: []string{"10"}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name                          string
		peer                          unixsock.Peer
		token                         string
		users, orders, closed, others right
		admin                         bool
	}{
		{"a stranger", unixsock.Peer{UID: 99, GID: 99}, "", mayNothing, mayRead, mayNothing, mayNothing, false},
		{"a user of two lines", unixsock.Peer{UID: 10, GID: 99}, "", mayRead, mayRead, mayNothing, mayWrite, false},
		{"a number without a word", unixsock.Peer{UID: 11, GID: 99}, "", mayWrite, mayRead, mayNothing, mayNothing, false},
		{"an admin of a namespace", unixsock.Peer{UID: 12, GID: 99}, "", mayAdmin, mayRead, mayNothing, mayNothing, false},
		{"a group", unixsock.Peer{UID: 99, GID: 20}, "", mayRead, mayRead, mayNothing, mayNothing, false},
		{"supplementary groups", unixsock.Peer{UID: 99, GID: 99, Groups: []int{1, 20, 21}}, "", mayRead, mayWrite, mayNothing, mayNothing, false},
		{"a user whose number is a group's", unixsock.Peer{UID: 20, GID: 10}, "", mayNothing, mayRead, mayNothing, mayNothing, false},
		{"a token", unixsock.Peer{UID: 99, GID: 99}, webSecret, mayNothing, mayWrite, mayNothing, mayNothing, false},
		{"a token adds", unixsock.Peer{UID: 10, GID: 99}, webSecret, mayRead, mayWrite, mayNothing, mayWrite, false},
		{"a token takes nothing", unixsock.Peer{UID: 10, GID: 99}, reportSecret, mayRead, mayRead, mayNothing, mayWrite, false},
		{"the group of administrators", unixsock.Peer{UID: 99, GID: 77}, "", mayAdmin, mayAdmin, mayAdmin, mayAdmin, true},
		{"one of its groups", unixsock.Peer{UID: 99, GID: 99, Groups: []int{5, 77}}, "", mayAdmin, mayAdmin, mayAdmin, mayAdmin, true},
		{"root", unixsock.Peer{UID: 0, GID: 99}, "", mayAdmin, mayAdmin, mayAdmin, mayAdmin, true},
		{"the sidecar's own user", unixsock.Peer{UID: own, GID: 99}, "", mayAdmin, mayAdmin, mayAdmin, mayAdmin, true},
	} {
		e := a.of(tc.peer)
		if tc.token != "" {
			tok, err := a.find(tc.token)
			if err != nil {
				t.Fatalf("%s: %v", tc.name, err)
			}
			e.add(a, tok.grants)
		}
		got := []right{e.in[a.lines["users"]], e.in[a.lines["orders"]], e.in[a.lines["closed"]], e.in[a.lines["never-named"]]}
		if want := []right{tc.users, tc.orders, tc.closed, tc.others}; !slices.Equal(got, want) || e.admin != tc.admin {
			t.Errorf("%s: %v, admin %v, want %v, %v", tc.name, got, e.admin, want, tc.admin)
		}
	}
	if want := []right{mayNothing, mayNothing, mayRead, mayNothing}; !slices.Equal(a.anyone, want) {
		t.Errorf("what all share was changed: %v, want %v", a.anyone, want)
	}
	for _, shown := range []string{webSecret[:19], webSecret + "x", "", "web"} {
		if _, err := a.find(shown); err == nil {
			t.Errorf("the token %q is taken", shown)
		}
	}
}

// Without rules who may open the socket may read and write.
func TestEntitledByDefault(t *testing.T) {
	a, err := newAccess(&Config{})
	if err != nil {
		t.Fatal(err)
	}
	if e := a.of(unixsock.Peer{UID: 99, GID: 99}); e.in[0] != mayWrite || e.admin || a.ruled {
		t.Errorf("%+v", e)
	}
	a, err = newAccess(&Config{Access: map[string]Grants{"users": {Admin: []string{"5"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if e := a.of(unixsock.Peer{UID: 99, GID: 99}); e.in[0] != mayWrite || e.in[1] != mayNothing {
		t.Errorf("beside a line: %+v", e)
	}
}

// What is wrong with the rules is said by name, with the remedy.
func TestAccessRefused(t *testing.T) {
	many := map[string]Grants{}
	for i := range maxLines + 1 {
		many[fmt.Sprint("n", i)] = Grants{Read: []string{}}
	}
	manyTokens := map[string]Token{}
	for i := range maxTokenNames + 1 {
		manyTokens[fmt.Sprint("n", i)] = Token{File: "/none"}
	}
	line := func(who ...string) Config { return Config{Access: map[string]Grants{"users": {Write: who}}} }
	open := tokenFile(t, "open", webSecret)
	if err := os.Chmod(open.File, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no such user", line("user:no-such-user"), `access: users: write: there is no user "no-such-user" here: create it, or give a number`},
		{"no such group", line("group:no-such-group"), `access: users: write: there is no group "no-such-group" here`},
		{"no such token", line("token:web"), "access: users: write: token:web: there is no such token: name its file under tokens"},
		{"no such group of administrators", Config{AdminGroup: "no-such-group"}, `admin_group: there is no group "no-such-group" here`},
		{"a bare word", line("web"), `"web": give user:NAME, group:NAME, token:NAME, the number of a user, or anyone`},
		{"another kind", line("role:web"), `"role:web": give user:NAME`},
		{"an empty name", line("user:"), `"user:": give user:NAME`},
		{"a star", line("*"), `"*": give user:NAME`},
		{"a number that is none", line("-1"), `"-1": give user:NAME`},
		{"the number of nobody at all", line("4294967295"), `give user:NAME`},
		{"a blank", line("user: web"), `give user:NAME`},
		{"too many", line(slices.Repeat([]string{"1"}, maxPrincipals+1)...), "access: users: write has 1025 entries: give at most 1024"},
		{"nothing", Config{Access: map[string]Grants{"users": {}}}, "access: users: say who may read, write or admin it; [] is nobody"},
		{"a bad name", Config{Access: map[string]Grants{"Users": {Read: []string{}}}}, `access: namespace "Users": a name is 1 to 64`},
		{"a reserved name", Config{Access: map[string]Grants{verifyNamespace: {Read: []string{}}}}, "access: namespace _verify is reserved"},
		{"too many lines", Config{Access: many}, "access names 257 namespaces: give at most 256"},
		{"too many tokens", Config{Tokens: manyTokens}, "tokens: there are 257: give at most 256"},
		{"a token without a file", Config{Tokens: map[string]Token{"web": {}}}, "tokens: web: file: give the path of a file"},
		{"a short token", Config{Tokens: map[string]Token{"web": tokenFile(t, "a", "0123456789abcde")}}, "a token is one line of 16 to 256 bytes: make one with"},
		{"a long token", Config{Tokens: map[string]Token{"web": tokenFile(t, "a", strings.Repeat("x", 257))}}, "a token is one line"},
		{"two lines", Config{Tokens: map[string]Token{"web": tokenFile(t, "a", webSecret+"\n"+webSecret)}}, "a token is one line"},
		{"a file for all", Config{Tokens: map[string]Token{"web": open}}, "tokens: web: file " + open.File + ": it holds a secret and has mode 0644"},
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

// Every op of apps has its line in the table; an op that has none is refused.
func TestDemandsOfAllOps(t *testing.T) {
	for op := range wire.OpCount {
		if want := op.Known() && !op.Peer(); (demands[op].need != closed) != want {
			t.Errorf("%s: need %d, want a line: %v", op, demands[op].need, want)
		}
		if d := demands[op]; (d.with != 0) != (d.more != closed) {
			t.Errorf("%s: %+v", op, d)
		}
	}
	var names []string
	for op := range wire.OpCount {
		if demands[op].need != closed && op != wire.OpHello {
			names = append(names, strings.ToLower(op.String()))
		}
	}
	slices.Sort(names)
	if told := slices.Sorted(slices.Values(features)); !slices.Equal(told, names) {
		t.Errorf("HELLO tells of %v, the table of %v", told, names)
	}
}

// sessionOf99 makes a session of user 99 that asks for nothing but decisions.
func sessionOf99(t *testing.T, cfg Config) *session {
	t.Helper()
	cfg.Node, cfg.NoSocket, cfg.L2Size, cfg.Log = "a", true, 8<<20, slog.New(slog.DiscardHandler)
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Run(ctx)
	})
	peer := unixsock.Peer{UID: 99, GID: 99}
	return &session{s: s, core: &s.core, by: caller{peer: peer, entitled: s.access.of(peer)}, names: borrowed{names: s.names}, work: new(work)}
}

// What a connection may do follows its namespace, its rules and the token that it has shown
// last, whatever it has asked for before.
func TestDecisions(t *testing.T) {
	may := func(c *session, op wire.Op, namespace string, options wire.Options, want bool) {
		t.Helper()
		c.req = &wire.Request{Op: op, Namespace: []byte(namespace), Options: options, App: true}
		if err := c.refusal(); (err == nil) != want {
			t.Errorf("%s in %q, options %d: %v, want that it may: %v", op, namespace, options, err, want)
		}
	}
	// Beside a line, without "*": others' namespaces are as they are without rules.
	c := sessionOf99(t, Config{Access: map[string]Grants{"users": {Write: []string{"99"}}}})
	may(c, wire.OpSet, "users", 0, true)
	may(c, wire.OpFlush, "users", 0, false)
	may(c, wire.OpFlush, "default", 0, true)
	may(c, wire.OpFlush, "default", wire.All, false)
	may(c, wire.OpWatch, "", wire.All, true)

	// A namespace that it has used is not the one that it asks for.
	c = sessionOf99(t, Config{
		Namespaces: map[string]Namespace{"open": {}, "users": {}},
		Access:     map[string]Grants{"open": {Write: []string{"anyone"}}, Others: {Write: []string{"5"}}},
	})
	for _, name := range []string{"open", "users", "open"} {
		c.names.read([]byte(name))
		may(c, wire.OpGet, "open", 0, true)
		may(c, wire.OpGet, "users", 0, false)
	}

	// To watch all takes the right to read something.
	c = sessionOf99(t, Config{Access: map[string]Grants{"users": {Write: []string{"5"}}, Others: {Write: []string{"5"}}}})
	may(c, wire.OpWatch, "", wire.All, false)

	// A token entitles until another is shown, or none.
	c = sessionOf99(t, Config{
		Tokens: map[string]Token{"web": tokenFile(t, "web", webSecret), "report": tokenFile(t, "report", reportSecret)},
		Access: map[string]Grants{"users": {Write: []string{"token:web"}}, Others: {Read: []string{"token:report"}}},
	})
	for _, tc := range []struct {
		secret      string
		write, read bool
	}{{webSecret, true, false}, {reportSecret, false, true}, {"", false, false}, {webSecret, true, false}, {"", false, false}} {
		if err := c.show(tc.secret); err != nil {
			t.Fatal(err)
		}
		may(c, wire.OpSet, "users", 0, tc.write)
		may(c, wire.OpGet, "default", 0, tc.read)
		may(c, wire.OpSet, "default", 0, false) // others may read
	}
	if err := c.show("no such secret, no such secret"); err == nil || c.by.ended == nil {
		t.Errorf("a token that there is not: %v, ends with %v", err, c.by.ended)
	}
}

// A decision takes no memory, whether the namespace has a slot or not.
func TestDecisionAllocatesNothing(t *testing.T) {
	c := sessionOf99(t, Config{Access: map[string]Grants{"users": {Read: []string{"99"}}, "orders": {Write: []string{"99"}}}})
	for _, name := range []string{"users", "orders", "default", "never-named"} {
		c.req = &wire.Request{Op: wire.OpGet, Namespace: []byte(name), App: true}
		if n := testing.AllocsPerRun(100, func() {
			if err := c.refusal(); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkDecision(b *testing.B) {
	a, err := newAccess(&Config{Access: map[string]Grants{"users": {Read: []string{"99"}}, "orders": {Write: []string{"99"}}}})
	if err != nil {
		b.Fatal(err)
	}
	peer := unixsock.Peer{UID: 99, GID: 99}
	for name, last := range map[string]*namespace{"slot": {name: "users", line: a.lines["users"]}, "name": nil} {
		b.Run(name, func(b *testing.B) {
			c := &session{core: &core{access: a}, by: caller{peer: peer, entitled: a.of(peer)}, names: borrowed{last: last}, work: new(work)}
			c.req = &wire.Request{Op: wire.OpGet, Namespace: []byte("users"), App: true}
			for b.Loop() {
				if c.refusal() != nil {
					b.Fatal("refused")
				}
			}
		})
	}
}

// FuzzPrincipal: an entry of the rules is read in one way, or refused with a word.
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

// byRoot is the caller of a session that a test makes itself.
func byRoot(c *core) caller { return caller{entitled: c.access.of(unixsock.Peer{UID: 0})} }
