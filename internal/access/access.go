// Package access decides what the app at the other end of a connection may do, in a
// namespace and with the sidecar as a whole.
//
// Input is the configured rules, the user and groups of the app's process, and the token
// that the app shows. Output is the answer to one request: nil, or UNAUTHORIZED with the
// remedy. A decision takes no lock and allocates nothing.
//
// New resolves the names of users and groups and reads the files of tokens. Replace puts
// other rules in their place; connections that are open follow them with their next
// request. The package starts no goroutine. It does not decide about requests of other sidecars: the sidecar
// that took such a request from an app has decided.
package access

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"os/user"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// Config is the rules as they are configured.
type Config struct {
	AdminGroup string            // its members administer the sidecar; "" is none
	Namespaces map[string]Grants // by name, or Others
	Tokens     map[string]string // their files, by name
	Reserved   string            // the name of a namespace that has no rules
}

// Grants lists the principals that may read, write or administer a namespace.
type Grants struct{ Read, Write, Admin []string }

// Others is the name in Config.Namespaces of all namespaces without a line of their own.
const Others = "*"

// Memcached is the principal in a list of Grants that all clients of the memcached endpoint
// are: a connection over TCP does not show whose it is.
const Memcached = "memcached"

// Bounds of the rules.
const (
	maxLines      = kv.MaxNamespaces // of Config.Namespaces
	maxPrincipals = 1024             // of one list
	maxTokenNames = 256              // of Config.Tokens
	minTokenLen   = 16               // bytes
	maxTokenLen   = wire.MaxNameLen  // bytes
)

// Right is what a caller may do in a namespace. A greater one has the smaller ones.
type Right uint8

// The rights, and their number.
const (
	Nothing Right = iota
	Read
	Write
	Admin
	Rights
)

var rightNames = [Rights]string{"nothing", "read", "write", "admin"}

func (r Right) String() string { return rightNames[r] }

// Rules are the rules as they are applied, and the counts of what they have refused.
type Rules struct {
	now      atomic.Pointer[rules]
	refusals [Rights]atomic.Int64 // requests, by the right that was missing; of Nothing: unknown tokens
}

// Replace puts other rules in the place of the present ones, and says whether they differ. The
// counts go on.
func (table *Rules) Replace(by *Rules) bool {
	next := by.now.Load()
	if reflect.DeepEqual(table.now.Load(), next) {
		return false
	}
	table.now.Store(next)
	return true
}

// rules are one configuration. They do not change, so sessions read them without a lock.
//
// A namespace that the configuration names has a line of its own. All other namespaces
// have line 0. If the configuration has "*", its principals have the rights of line 0;
// otherwise anyone may read and write there.
type rules struct {
	lines     map[string]uint16
	ruled     bool    // the configuration has "*"
	anyone    []Right // by line
	all       []Right // by line: the right Admin for each
	users     map[int][]grant
	groups    map[int][]grant
	tokens    []token
	memcached []grant
	own       int // this process's user
	admins    int // the group of administrators; -1 is none
}

// grant is a right in the namespaces of a line.
type grant struct {
	line  uint16
	right Right
}

// token is one of Config.Tokens.
type token struct {
	name   string
	digest digest
	grants []grant
}

// digest is the hash of a token.
type digest [sha256.Size]byte

// New reads the rules, resolves the names of users and groups, and reads the files of
// the tokens.
func New(c Config) (*Rules, error) {
	r, err := read(c)
	if err != nil {
		return nil, err
	}
	a := &Rules{}
	a.now.Store(r)
	return a, nil
}

func read(c Config) (*rules, error) {
	a := &rules{
		lines: map[string]uint16{}, users: map[int][]grant{}, groups: map[int][]grant{}, own: os.Geteuid(), admins: -1,
	}
	var wrong settings.Problems
	if c.AdminGroup != "" {
		var err error
		a.admins, err = groupID(c.AdminGroup)
		wrong.Add(settings.Within("admin_group", err))
	}
	wrong.Add(a.readTokens(c.Tokens))
	names := slices.Sorted(maps.Keys(c.Namespaces))
	if len(names) > maxLines {
		wrong.Addf("access", "names %d namespaces: give at most %d", len(names), maxLines)
		return nil, wrong.Err()
	}
	_, a.ruled = c.Namespaces[Others]
	for _, name := range names {
		switch {
		case name == Others:
		case name == c.Reserved:
			wrong.Addf("access."+name, "is reserved: use another name")
		case !kv.ValidNamespace(name):
			wrong.Addf("access."+name, ": a namespace's name is 1 to %d of a-z, 0-9, _, . and -, "+
				"or %q for those without a line of their own", kv.MaxNamespaceLen, Others)
		default:
			a.lines[name] = uint16(len(a.lines) + 1)
		}
	}
	a.anyone = make([]Right, len(a.lines)+1)
	a.all = slices.Repeat([]Right{Admin}, len(a.anyone))
	if !a.ruled {
		a.anyone[0] = Write
	}
	for _, name := range names {
		wrong.Add(a.readLine(name, c.Namespaces[name]))
	}
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	return a, nil
}

// ReadToken returns the token in a file. setting names the file's setting in errors.
func ReadToken(setting, path string) (string, error) {
	s, err := settings.SecretFile(setting, path)
	if err == nil && (len(s) < minTokenLen || len(s) > maxTokenLen || strings.ContainsAny(s, "\r\n\x00")) {
		err = settings.Problemf(setting, "%s: a token is one line of %d to %d bytes: "+
			"make one with \"head -c 32 /dev/urandom | base64\"", path, minTokenLen, maxTokenLen)
	}
	return s, err
}

// readTokens reads the tokens from their files. A token whose file is wrong keeps its
// name, so that the rules that name it are not wrong as well.
func (a *rules) readTokens(list map[string]string) error {
	if len(list) > maxTokenNames {
		return settings.Problemf("tokens", ": there are %d: give at most %d", len(list), maxTokenNames)
	}
	var wrong settings.Problems
	for _, name := range slices.Sorted(maps.Keys(list)) {
		if !kv.ValidNamespace(name) {
			// The name may be a secret, so the error leaves it out.
			wrong.Addf("tokens", ": a name is 1 to %d of a-z, 0-9, _, . and -", kv.MaxNamespaceLen)
			continue
		}
		secret, err := readToken(name, list[name])
		wrong.Add(err)
		t := token{name: name, digest: sha256.Sum256([]byte(secret))}
		for _, other := range a.tokens {
			if other.digest == t.digest && err == nil {
				wrong.Addf("tokens", ": %s and %s are the same secret: give each its own", other.name, name)
			}
		}
		a.tokens = append(a.tokens, t)
	}
	return wrong.Err()
}

func readToken(name, path string) (string, error) {
	setting := "tokens." + name + ".file"
	if path == "" {
		return "", settings.Problemf(setting, ": give the path of a file that contains the token")
	}
	return ReadToken(setting, path)
}

// readLine reads the rules of one namespace, or of Others.
func (a *rules) readLine(name string, g Grants) error {
	if g.Read == nil && g.Write == nil && g.Admin == nil {
		return settings.Problemf("access."+name, ": say who may read, write or admin it; [] means no user")
	}
	var wrong settings.Problems
	for _, list := range []struct {
		right      Right
		principals []string
	}{{Read, g.Read}, {Write, g.Write}, {Admin, g.Admin}} {
		setting := fmt.Sprintf("access.%s.%s", name, list.right)
		if len(list.principals) > maxPrincipals {
			wrong.Addf(setting, "has %d entries: give at most %d",
				len(list.principals), maxPrincipals)
			continue
		}
		for _, principal := range list.principals {
			if err := a.grant(principal, grant{a.lines[name], list.right}); err != nil {
				wrong.Addf(setting, ": %w", err)
			}
		}
	}
	return wrong.Err()
}

// grant gives a principal a right.
func (a *rules) grant(principal string, g grant) error {
	kind, name, err := parsePrincipal(principal)
	if err != nil {
		return err
	}
	switch kind {
	case "anyone":
		a.anyone[g.line] = max(a.anyone[g.line], g.right)
	case Memcached:
		a.memcached = append(a.memcached, g)
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
			return fmt.Errorf("%s: there is no such token: name its file under tokens", principal)
		}
		a.tokens[i].grants = append(a.tokens[i].grants, g)
	}
	return nil
}

// parsePrincipal reads an entry of a list of Grants.
func parsePrincipal(s string) (kind, name string, err error) {
	if s == "anyone" || s == Memcached {
		return s, "", nil
	}
	if _, ok := idOf(s); ok {
		return "user", s, nil
	}
	kind, name, _ = strings.Cut(s, ":")
	known := kind == "user" || kind == "group" || kind == "token"
	if !known || name == "" || len(name) > maxTokenLen || strings.ContainsAny(name, ":/ \t\r\n\x00") {
		return "", "", fmt.Errorf(
			"%.100q: give user:NAME, group:NAME, token:NAME, the number of a user, memcached, or anyone", s)
	}
	return kind, name, nil
}

// idOf reads the number of a user or a group. The highest number is not valid.
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

// Refusals counts the refused requests by the right that was missing; by "token", the
// unknown tokens.
func (table *Rules) Refusals() map[string]int64 {
	n := map[string]int64{"token": table.refusals[Nothing].Load()}
	for r := Read; r < Rights; r++ {
		n[r.String()] = table.refusals[r].Load()
	}
	return n
}

// entitled is what a connection may do.
type entitled struct {
	in    []Right // by line of the rules; shared by connections, never changed
	admin bool    // of the sidecar as a whole
}

// of returns what a process may do that has shown no token.
func (a *rules) of(p unixsock.Peer) entitled {
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

// ofMemcached returns what the clients of the memcached endpoint may do.
func (a *rules) ofMemcached() entitled {
	e := entitled{in: a.anyone}
	e.add(a, a.memcached)
	return e
}

// add adds rights. It copies e.in first if e.in is shared.
func (e *entitled) add(a *rules, list []grant) {
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

// find returns the token with a digest, or nil. It always compares all tokens, and
// compares digests, so that its duration tells nothing about a secret.
func (a *rules) find(shown digest) *token {
	found := -1
	for i := range a.tokens {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(shown[:], a.tokens[i].digest[:]), i, found)
	}
	if found < 0 {
		return nil
	}
	return &a.tokens[found]
}

var errToken = errors.New("the token is none of those in this sidecar's configuration")
