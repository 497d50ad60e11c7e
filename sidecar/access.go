package sidecar

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// Grants says who may do what in a namespace, through the socket. Admin has what
// Write has, and Write what Read has. Each entry is one of
//
//	user:NAME, user:1000, 1000   a user
//	group:NAME, group:100        the members of a group
//	token:NAME                   a connection that has shown this one of Config.Tokens
//	anyone                       all who may open the socket
type Grants struct {
	Read  []string `yaml:"read"`
	Write []string `yaml:"write"`
	Admin []string `yaml:"admin"`
}

// Token is a secret that a connection may show in HELLO. It adds rights to those of
// the connection's user: for containers that share a user.
type Token struct {
	// File has the secret: one line of 16 to 256 bytes. Only this process's user,
	// its group and root may read the file.
	File string `yaml:"file"`
}

// Others is the name in Config.Access of all namespaces without a line of their own.
const Others = "*"

// Bounds of the rules.
const (
	maxLines      = kv.MaxNamespaces // of Config.Access
	maxPrincipals = 1024             // of one list
	maxTokenNames = 256              // of Config.Tokens
	minTokenLen   = 16               // bytes, also of Config.HTTPTokenFile
	maxTokenLen   = wire.MaxNameLen  // bytes, also of Config.HTTPTokenFile
)

// right is what a caller may do in a namespace. A greater one has the smaller ones.
type right uint8

const (
	mayNothing right = iota
	mayRead
	mayWrite
	mayAdmin
	rights
)

var rightNames = [rights]string{"nothing", "read", "write", "admin"}

func (r right) String() string { return rightNames[r] }

// access is the rules of the socket. They are made of the configuration once, so
// sessions read them without a lock.
//
// A namespace that the configuration names has a line of its own. All others have line
// 0: their rights are those of "*", or anyone may read and write.
type access struct {
	lines  map[string]uint16
	ruled  bool    // the configuration has "*"
	anyone []right // by line
	all    []right // by line: admin of each
	users  map[int][]grant
	groups map[int][]grant
	tokens []token
	own    int // this process's user
	admins int // the group of administrators; -1 is none

	refusals [rights]atomic.Int64 // requests, by the right that was missing; of mayNothing: tokens
}

// grant is a right in the namespaces of a line.
type grant struct {
	line  uint16
	right right
}

// token is one of Config.Tokens.
type token struct {
	name   string
	digest [sha256.Size]byte
	grants []grant
}

// newAccess reads the rules, resolves the names of users and groups, and reads the
// tokens' files.
func newAccess(c *Config) (*access, error) {
	a := &access{
		lines: map[string]uint16{}, users: map[int][]grant{}, groups: map[int][]grant{}, own: os.Geteuid(), admins: -1,
	}
	var err error
	if c.AdminGroup != "" {
		if a.admins, err = groupID(c.AdminGroup); err != nil {
			return nil, fmt.Errorf("admin_group: %w", err)
		}
	}
	if err := a.readTokens(c.Tokens); err != nil {
		return nil, err
	}
	names := slices.Sorted(maps.Keys(c.Access))
	if len(names) > maxLines {
		return nil, fmt.Errorf("access names %d namespaces: give at most %d", len(names), maxLines)
	}
	_, a.ruled = c.Access[Others]
	for _, name := range names {
		switch {
		case name == Others:
		case reserved([]byte(name)):
			return nil, fmt.Errorf("access: namespace %s is reserved: use another name", name)
		case !kv.ValidNamespace(name):
			return nil, fmt.Errorf("access: namespace %q: a name is 1 to %d of a-z, 0-9, _, . and -, "+
				"or %q for those without a line of their own", name, kv.MaxNamespaceLen, Others)
		default:
			a.lines[name] = uint16(len(a.lines) + 1)
		}
	}
	a.anyone = make([]right, len(a.lines)+1)
	a.all = slices.Repeat([]right{mayAdmin}, len(a.anyone))
	if !a.ruled {
		a.anyone[0] = mayWrite
	}
	for _, name := range names {
		if err := a.readLine(name, c.Access[name]); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// readToken returns the token that a file holds.
func readToken(setting, path string) (string, error) {
	s, err := settings.SecretFile(setting, path)
	if err == nil && (len(s) < minTokenLen || len(s) > maxTokenLen || strings.ContainsAny(s, "\r\n\x00")) {
		err = fmt.Errorf("%s %s: a token is one line of %d to %d bytes: make one with \"head -c 32 /dev/urandom | base64\"",
			setting, path, minTokenLen, maxTokenLen)
	}
	return s, err
}

// readTokens reads the secrets.
func (a *access) readTokens(list map[string]Token) error {
	if len(list) > maxTokenNames {
		return fmt.Errorf("tokens: there are %d: give at most %d", len(list), maxTokenNames)
	}
	for _, name := range slices.Sorted(maps.Keys(list)) {
		if !kv.ValidNamespace(name) {
			return fmt.Errorf("tokens: a name is 1 to %d of a-z, 0-9, _, . and -", kv.MaxNamespaceLen) // it may be a secret
		}
		setting := "tokens: " + name + ": file"
		if list[name].File == "" {
			return fmt.Errorf("%s: give the path of a file that holds the token", setting)
		}
		secret, err := readToken(setting, list[name].File)
		if err != nil {
			return err
		}
		t := token{name: name, digest: sha256.Sum256([]byte(secret))}
		for _, other := range a.tokens {
			if other.digest == t.digest {
				return fmt.Errorf("tokens: %s and %s are the same secret: give each its own", other.name, name)
			}
		}
		a.tokens = append(a.tokens, t)
	}
	return nil
}

// readLine reads who may what in one namespace, or in the others.
func (a *access) readLine(name string, g Grants) error {
	if g.Read == nil && g.Write == nil && g.Admin == nil {
		return fmt.Errorf("access: %s: say who may read, write or admin it; [] is nobody", name)
	}
	for _, list := range []struct {
		right right
		who   []string
	}{{mayRead, g.Read}, {mayWrite, g.Write}, {mayAdmin, g.Admin}} {
		if len(list.who) > maxPrincipals {
			return fmt.Errorf("access: %s: %s has %d entries: give at most %d", name, list.right, len(list.who), maxPrincipals)
		}
		for _, who := range list.who {
			if err := a.grant(who, grant{a.lines[name], list.right}); err != nil {
				return fmt.Errorf("access: %s: %s: %w", name, list.right, err)
			}
		}
	}
	return nil
}

// grant gives a principal a right.
func (a *access) grant(who string, g grant) error {
	kind, name, err := parsePrincipal(who)
	if err != nil {
		return err
	}
	switch kind {
	case "anyone":
		a.anyone[g.line] = max(a.anyone[g.line], g.right)
	case "user":
		id, err := userID(name)
		if err != nil {
			return err
		}
		a.users[id] = append(a.users[id], g)
	case "group":
		id, err := groupID(name)
		if err != nil {
			return err
		}
		a.groups[id] = append(a.groups[id], g)
	case "token":
		i := slices.IndexFunc(a.tokens, func(t token) bool { return t.name == name })
		if i < 0 {
			return fmt.Errorf("%s: there is no such token: name its file under tokens", who)
		}
		a.tokens[i].grants = append(a.tokens[i].grants, g)
	}
	return nil
}

// parsePrincipal reads an entry of a list of Grants.
func parsePrincipal(s string) (kind, name string, err error) {
	if s == "anyone" {
		return s, "", nil
	}
	if _, ok := idOf(s); ok {
		return "user", s, nil
	}
	kind, name, _ = strings.Cut(s, ":")
	known := kind == "user" || kind == "group" || kind == "token"
	if !known || name == "" || len(name) > maxTokenLen || strings.ContainsAny(name, ":/ \t\r\n\x00") {
		return "", "", fmt.Errorf("%.100q: give user:NAME, group:NAME, token:NAME, the number of a user, or anyone", s)
	}
	return kind, name, nil
}

// idOf reads the number of a user or a group. The highest number is none of them.
func idOf(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == math.MaxUint32 || strconv.FormatUint(n, 10) != s {
		return 0, false
	}
	return int(n), true
}

func userID(name string) (int, error) {
	if id, ok := idOf(name); ok {
		return id, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, fmt.Errorf("there is no user %q here: create it, or give a number: %w", name, err)
	}
	return strconv.Atoi(u.Uid)
}

func groupID(name string) (int, error) {
	if id, ok := idOf(name); ok {
		return id, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("there is no group %q here: create it, or give a number: %w", name, err)
	}
	return strconv.Atoi(g.Gid)
}

// entitled is what a connection may do.
type entitled struct {
	in    []right // by line of access; shared by connections, never changed
	admin bool    // of the sidecar as a whole
}

// of says what a process may do that has shown no token.
func (a *access) of(p unixsock.Peer) entitled {
	if p.UID == 0 || p.UID == a.own || a.admins >= 0 && (p.GID == a.admins || slices.Contains(p.Groups, a.admins)) {
		return entitled{a.all, true}
	}
	e := entitled{in: a.anyone}
	e.add(a, a.users[p.UID])
	if len(a.groups) > 0 {
		e.add(a, a.groups[p.GID])
		for _, id := range p.Groups {
			e.add(a, a.groups[id])
		}
	}
	return e
}

// add adds rights.
func (e *entitled) add(a *access, list []grant) {
	for _, g := range list {
		if e.in[g.line] >= g.right {
			continue
		}
		if &e.in[0] == &a.anyone[0] {
			e.in = slices.Clone(e.in)
		}
		e.in[g.line] = g.right
	}
}

// find returns the token that a connection shows. It compares all of them, whatever it
// finds, by their digests: how long it takes tells nothing of a secret.
func (a *access) find(shown string) (*token, error) {
	digest := sha256.Sum256([]byte(shown))
	found := -1
	for i := range a.tokens {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(digest[:], a.tokens[i].digest[:]), i, found)
	}
	if found < 0 {
		return nil, errToken
	}
	return &a.tokens[found], nil
}

var errToken = errors.New("the token is none of those in this sidecar's configuration")
