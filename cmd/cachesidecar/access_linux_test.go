package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// needRoot skips tests that need other users: only root can become another user.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can become other users: run the tests as root")
	}
}

// person is a user with groups, as the kernel knows it.
type person struct {
	uid, gid uint32
	groups   []uint32
}

var (
	passerby = person{uid: 60099, gid: 60099}
	reader   = person{uid: 60001, gid: 60099}
	writer   = person{uid: 60099, gid: 60099, groups: []uint32{60098, 60020}}
	keeper   = person{uid: 60003, gid: 60099}
	chief    = person{uid: 60099, gid: 60099, groups: []uint32{60077}}
	root     = person{}
)

// accessRules are the rules of the tests: reader may read, writer may write because of
// one of its groups, keeper administers namespace users, chief administers all. Any user
// may read and write namespace open; none of these users has a right to the other
// namespaces.
const accessRules = `
socket_mode: 0666
admin_group: 60077
access:
  users:
    read: [user:60001, token:web]
    write: [group:60020]
    admin: [60003]
  open:
    write: [anyone]
  "*":
    write: [token:web]
tokens:
  web: {file: %s}
  ops: {file: %s}
`

// ruled starts a sidecar with accessRules. Any user may reach its socket; its token files
// belong to root. It returns the token web too.
func ruled(t *testing.T, flags ...string) (p *process, config, web string) {
	t.Helper()
	dir := tempDir(t)
	testenv.Must(t, os.Chmod(dir, 0o755))
	files := map[string]string{"web": "web-0123456789abcdef", "ops": "ops-0123456789abcdef"}
	files["c.yaml"] = fmt.Sprintf(accessRules, filepath.Join(dir, "web"), filepath.Join(dir, "ops"))
	for name, text := range files {
		testenv.Must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	config = filepath.Join(dir, "c.yaml")
	return runSidecarAt(t, filepath.Join(dir, "s"), append(flags, "--config", config)...), config, files["web"]
}

// as runs a client command as another user.
func (p *process) as(who person, args ...string) outcome {
	p.t.Helper()
	cmd := exec.Command(binary(), append(args, "--socket", p.socket)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: who.uid, Gid: who.gid, Groups: who.groups}}
	child := launch(p.t, cmd)
	return outcome{child.wait(), child.out.String(), child.log.String()}
}

// TestNotInTheGroup checks what commands tell a user who may not open the socket: of which
// group it is, what to do, and not to start another sidecar. The status is that of a sidecar that
// cannot be reached.
func TestNotInTheGroup(t *testing.T) {
	t.Parallel()
	needRoot(t)
	p, _, _ := ruled(t, "--socket-group", "60098", "--socket-mode", "0660")
	folder := filepath.Dir(p.socket)
	for _, tc := range []struct{ closed, want string }{
		{"the socket", "the socket belongs to group 60098 and has mode 0660, and user 60099 is not in it: usermod -aG 60098 60099, and start this program anew"},
		{"its folder", "the folder " + folder + " belongs to group 60098 and has mode 0710, and user 60099 is not in it: usermod -aG 60098 60099, and start this program anew"},
	} {
		if tc.closed == "its folder" {
			testenv.Must(t, errors.Join(os.Chown(folder, 0, 60098), os.Chmod(folder, 0o710)))
		}
		for _, line := range []string{"get k", "health", "ping --alive", "bench"} {
			o := p.as(passerby, strings.Fields(line)...)
			if o.status != exitConnect || o.out != "" || !strings.Contains(o.err, p.socket+": permission denied: "+tc.want) || strings.Contains(o.err, "cachesidecar run") {
				t.Errorf("%s, %s: %v\nwant %s", tc.closed, line, o, tc.want)
			}
		}
	}
}

// TestAccess checks what each user may do with each command, and the text of refusals.
func TestAccess(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	needRoot(t)
	addr := testenv.FreeAddress(t)
	p, _, _ := ruled(t, "--http", addr)
	allowed := func(who person, args ...string) {
		t.Helper()
		if o := p.as(who, args...); o.status == exitUsage || o.status > exitMiss || strings.Contains(o.err, "unauthorized") {
			t.Errorf("uid %d, groups %v: %q: %v", who.uid, who.groups, args, o)
		}
	}
	refused := func(want string, who person, args ...string) {
		t.Helper()
		o := p.as(who, args...)
		if o.status != exitMiss || o.out != "" || !strings.Contains(o.err, "unauthorized: uid "+fmt.Sprint(who.uid)+" may not ") || !strings.Contains(o.err, want) {
			t.Errorf("uid %d, groups %v: %q: %v\nwant %q", who.uid, who.groups, args, o, want)
		}
	}
	users := []string{"--ns", "users"}
	get, set := append([]string{"get", "k"}, users...), append([]string{"set", "k", "v"}, users...)
	flush := append([]string{"flush", "--yes"}, users...)

	refused(`GET in namespace "users": it needs the right read there: add user:60099 to access, "users", read in the sidecar's configuration`, passerby, get...)
	refused("it needs the right write there", passerby, set...)
	allowed(reader, get...)
	refused(`SET in namespace "users": it needs the right write there: add user:60001 to access, "users", write`, reader, set...)
	refused("DELETE", reader, "del", "k", "--ns", "users")
	refused("TOUCH", reader, "touch", "k", "1m", "--ns", "users")
	refused("INCR", reader, "incr", "k", "--ns", "users")
	allowed(writer, set...)
	allowed(writer, get...)
	refused(`FLUSH in namespace "users": it needs the right admin there`, writer, flush...)
	allowed(keeper, flush...)
	allowed(keeper, set...)

	// The rule "*" applies to a namespace that the rules do not name.
	refused(`GET in namespace "new": it needs the right read there: add user:60003 to access, "*", read`, keeper, "get", "k", "--ns", "new")
	allowed(passerby, "set", "k", "v", "--ns", "open")
	allowed(chief, "set", "k", "v", "--ns", "new")

	// Commands on the whole sidecar need its administrators.
	whole := [][]string{{"flush", "--yes"}, {"flush", "--yes", "--this-host"}, {"stats", "--cluster"}, {"verify", "--duration", "100ms"}, {"members", "forget", "host9"}}
	for _, args := range whole {
		refused("it needs the right admin of the whole sidecar, which root, the sidecar's own user (uid 0) and the members of admin_group have", keeper, args...)
		allowed(chief, args...)
		allowed(root, args...)
	}
	// Commands that reveal no key are open to all users.
	for _, args := range [][]string{{"stats"}, {"members"}, {"ring", "k"}, {"health"}} {
		allowed(passerby, args...)
	}
	// A refused request creates no namespace, and is counted.
	refused("GET", passerby, "get", "k", "--ns", "unseen")
	refused("SET", passerby, "set", "k", "v", "--ns", "unseen")
	if o := p.at("stats", "--json"); !strings.Contains(o.out, `"users"`) || strings.Contains(o.out, `"unseen"`) {
		t.Errorf("a refused request has made a namespace: %s", o.out)
	}
	testenv.Succeeds(t, "metrics", func() error {
		r, err := (&http.Client{Timeout: testenv.Patience}).Get("http://" + addr + "/metrics")
		if err != nil {
			return err
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		for _, want := range []string{`{right="read"} 3`, `{right="write"} 6`, `{right="admin"} 6`, `{right="token"} 0`} {
			if !strings.Contains(string(b), "cachesidecar_requests_unauthorized_total"+want) {
				t.Errorf("metrics lack %s", want)
			}
		}
		return err
	})
}

// TestAccessByDefault checks that without rules any user who may open the socket reads,
// writes and flushes namespaces. Requests about the whole sidecar are for its own user
// and for root, which may be two users.
func TestAccessByDefault(t *testing.T) {
	testenv.Takes(t, 2*time.Second)
	needRoot(t)
	dir := tempDir(t)
	testenv.Must(t, os.Chmod(dir, 0o777))
	cmd := exec.Command(binary(), "run", "--socket", filepath.Join(dir, "s"), "--http", "off", "--socket-mode", "0666")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: keeper.uid, Gid: keeper.gid}}
	p := launch(t, cmd)
	p.socket = filepath.Join(dir, "s")
	p.waitFor("the sidecar to serve", p.log, func(log string) bool { return strings.Contains(log, `"msg":"serving"`) })
	for _, tc := range []struct {
		name  string
		who   person
		whole bool
	}{{"a stranger", passerby, false}, {"its own user", keeper, true}, {"root", root, true}} {
		c, _ := p.dialAs(tc.who, "")
		for op, q := range appRequests("users") {
			want := op == wire.OpVerify || op == wire.OpForget || op == wire.OpHot || op == wire.OpKeys || op == wire.OpSlow || op == wire.OpDrain || op == wire.OpReload
			if r := c.call(q); (r.Status == wire.Unauthorized) != (want && !tc.whole) {
				t.Errorf("%s: %s: %v %s", tc.name, op, r.Status, r.Message)
			}
		}
		for _, q := range []*wire.Request{{Op: wire.OpFlush, Options: wire.All}, {Op: wire.OpStats, Options: wire.Cluster}} {
			if r := c.call(q); (r.Status == wire.Unauthorized) == tc.whole {
				t.Errorf("%s: %s of all: %v %s", tc.name, q.Op, r.Status, r.Message)
			}
		}
		if r := c.call(&wire.Request{Op: wire.OpWatch, Options: wire.All}); r.Status != wire.OK {
			t.Errorf("%s: WATCH of all: %v %s", tc.name, r.Status, r.Message)
		}
	}
	p.terminate()
}

// dialAs opens a connection as another user. The kernel records the effective credentials
// of the thread that connects, so no other process is needed.
func (p *process) dialAs(who person, token string) (*conn, wire.Reply) {
	p.t.Helper()
	c, err := p.connectAs(who)
	testenv.Must(p.t, err)
	p.t.Cleanup(c.close)
	q := helloRequest()
	q.Hello.Token = token
	return c, c.call(q)
}

// connectAs is tryConnect on a thread that becomes another user meanwhile. It restores
// the thread and does not end it: processes of other tests that the thread has started
// would end with it (see endWithParent).
func (p *process) connectAs(who person) (c *conn, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := syscall.Getgroups()
	if err != nil {
		return nil, err
	}
	myself := person{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}
	for _, g := range own {
		myself.groups = append(myself.groups, uint32(g))
	}
	defer func() {
		// The user comes first: only root may choose groups.
		if back := errors.Join(becomeUser(myself), becomeGroups(myself)); back != nil {
			panic(back)
		}
	}()
	if err := becomeGroups(who); err != nil {
		return nil, err
	}
	if err := becomeUser(who); err != nil {
		return nil, err
	}
	return p.tryConnect()
}

// becomeUser changes the effective user of the calling thread.
func becomeUser(who person) error {
	_, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, keep, uintptr(who.uid), keep)
	return errnoError(errno)
}

// becomeGroups changes the effective groups of the calling thread.
func becomeGroups(who person) error {
	groups := append([]uint32{0}, who.groups...)[1:]
	_, _, errno := syscall.RawSyscall(syscall.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0)
	if err := errnoError(errno); err != nil {
		return err
	}
	_, _, errno = syscall.RawSyscall(syscall.SYS_SETRESGID, keep, uintptr(who.gid), keep)
	return errnoError(errno)
}

// keep leaves an identity unchanged.
const keep = ^uintptr(0)

// errnoError returns nil if there is no error.
func errnoError(errno syscall.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

// appRequests returns a request for each op of apps, in a namespace.
func appRequests(ns string) map[wire.Op]*wire.Request {
	key, name := []byte("k"), []byte(ns)
	all := map[wire.Op]*wire.Request{
		wire.OpMGet:   {Keys: [][]byte{key}},
		wire.OpDelete: {Keys: [][]byte{key}},
		wire.OpHits:   {Keys: [][]byte{key}},
		wire.OpForget: {Key: []byte("host9")},
		wire.OpFill:   {Key: key, Token: []byte("t"), Value: key},
		wire.OpSet:    {Key: key, Value: key},
		wire.OpVerify: {WaitMS: 1, TimeoutMS: 5000},
	}
	for op := wire.OpPing; !op.Peer(); op++ {
		if !op.Known() || op == wire.OpLeaving { // its answer comes when the sidecar ends
			continue
		}
		if all[op] == nil {
			all[op] = &wire.Request{Key: key}
		}
		all[op].Op, all[op].Namespace = op, name
		all[op].TTLMS = wire.TTLDefault
	}
	return all
}

// TestAccessOfAllOps sends each op over the socket as users with each right. Exactly the
// ops without a right are answered UNAUTHORIZED. A connection continues after a refusal.
func TestAccessOfAllOps(t *testing.T) {
	testenv.Takes(t, 3*time.Second)
	needRoot(t)
	p, _, web := ruled(t)
	free := []wire.Op{wire.OpPing, wire.OpStats, wire.OpMembers, wire.OpRing, wire.OpShared}
	reads := append(free, wire.OpGet, wire.OpMGet, wire.OpWatch, wire.OpHits, wire.OpMetaGet)
	writes := append(reads, wire.OpSet, wire.OpDelete, wire.OpTouch, wire.OpIncr, wire.OpLease, wire.OpFill)
	admins := append(writes, wire.OpFlush, wire.OpHot, wire.OpKeys, wire.OpSlow)
	all := append(admins, wire.OpVerify, wire.OpForget, wire.OpDrain, wire.OpReload)
	for _, tc := range []struct {
		name  string
		who   person
		token string
		ns    string
		want  []wire.Op
	}{
		{"a stranger", passerby, "", "users", free},
		{"a reader", reader, "", "users", reads},
		{"a writer by its group", writer, "", "users", writes},
		{"an admin of the namespace", keeper, "", "users", admins},
		{"the same elsewhere", keeper, "", "elsewhere", free},
		{"a token", passerby, web, "users", reads},
		{"a token elsewhere", passerby, web, "elsewhere", writes},
		{"a token adds to the user", writer, web, "users", writes},
		{"one of the group of administrators", chief, "", "elsewhere", all},
		{"root", root, "", "elsewhere", all},
	} {
		c, hello := p.dialAs(tc.who, tc.token)
		if hello.Status != wire.OK {
			t.Fatalf("%s: HELLO: %v %s", tc.name, hello.Status, hello.Message)
		}
		may := map[wire.Op]bool{}
		for _, op := range tc.want {
			may[op] = true
		}
		for op, q := range appRequests(tc.ns) {
			r := c.call(q)
			if (r.Status == wire.Unauthorized) == may[op] {
				t.Errorf("%s: %s: %v %s, want it to be allowed: %v", tc.name, op, r.Status, r.Message, may[op])
			}
		}
		c.must(ping())
	}
}

// TestAccessOfWatch checks that with the option all WATCH reports only the namespaces
// that the caller may read.
func TestAccessOfWatch(t *testing.T) {
	needRoot(t)
	p, _, _ := ruled(t)
	admin, _ := p.dialAs(root, "")
	r, _ := p.dialAs(reader, "")
	watch := func(c *conn, epoch, seq uint64) (w wire.Watched) {
		t.Helper()
		got := c.must(&wire.Request{Op: wire.OpWatch, Options: wire.All, Epoch: epoch, Seq: seq})
		testenv.Must(t, wire.UnmarshalBody(got.Body, &w))
		return w
	}
	first, theirs := watch(admin, 0, 0), watch(r, 0, 0)
	for _, ns := range []string{"users", "secret"} {
		q := setRequest("k", "v")
		q.Namespace = []byte(ns)
		admin.must(q)
		admin.must(&wire.Request{Op: wire.OpFlush, Namespace: []byte(ns)})
	}
	flushed := func(w wire.Watched) (names []string) {
		if err := w.Events.Each(func(kind uint8, _, _ uint64, d *wire.EventDetail) {
			if kind == wire.EventFlushed {
				names = append(names, d.Namespace)
			}
		}); err != nil {
			t.Fatal(err)
		}
		return names
	}
	if got := flushed(watch(admin, first.Epoch, first.Seq)); fmt.Sprint(got) != "[users secret]" {
		t.Errorf("an administrator hears of %v", got)
	}
	if got := flushed(watch(r, theirs.Epoch, theirs.Seq)); fmt.Sprint(got) != "[users]" {
		t.Errorf("a reader of users hears of %v", got)
	}
}

// TestTokens checks that a wrong token is refused in the answer to HELLO, that the
// connection ends, and that later requests on it are not served. A valid token also works
// through the command line.
func TestTokens(t *testing.T) {
	t.Parallel()
	needRoot(t)
	p, config, web := ruled(t)
	for _, token := range []string{"web-0123456789abcdeX", web[:19], web + "x", "web"} {
		c, hello := p.dialAs(passerby, token)
		if hello.Status != wire.Unauthorized || !strings.Contains(string(hello.Message), "HELLO of uid 60099: the token is none of those") ||
			strings.Contains(string(hello.Message), token) {
			t.Errorf("%q: %v %s", token, hello.Status, hello.Message)
		}
		if left := c.rest(); len(left) != 0 {
			t.Errorf("%q: the connection goes on: %v", token, left)
		}
	}
	c, _ := p.dialAs(passerby, web)
	q := helloRequest()
	q.Hello.Token = "a wrong one"
	q.ID = 7
	set := setRequest("behind", "v")
	set.ID, set.Namespace = 8, []byte("open")
	c.write(wire.AppendRequest(wire.AppendRequest(nil, q), set))
	if left := c.rest(); len(left) != 1 || left[0].ID != 7 || left[0].Status != wire.Unauthorized {
		t.Errorf("behind a wrong token: %v", left)
	}
	if o := p.at("get", "behind", "--ns", "open"); o.status != exitMiss {
		t.Errorf("what came behind a wrong token was served: %v", o)
	}

	// The user's own copy of the secret.
	dir := filepath.Dir(config)
	mine := filepath.Join(dir, "mine")
	testenv.Must(t, os.WriteFile(mine, []byte(web+"\n"), 0o600))
	set2 := []string{"set", "k", "v", "--ns", "elsewhere"}
	p.as(passerby, append(set2, "--token-file", mine)...).fails(t, "a file that may not be read", exitMiss, "token file "+mine+": permission denied")
	testenv.Must(t, os.Chown(mine, int(passerby.uid), int(passerby.gid)))
	if o := p.as(passerby, append(set2, "--token-file", mine)...); o.status != exitDone {
		t.Errorf("with the token: %v", o)
	}
	p.as(passerby, set2...).fails(t, "without the token", exitMiss, "unauthorized: uid 60099 may not SET")
	testenv.Must(t, os.Chmod(mine, 0o644))
	p.as(passerby, append(set2, "--token-file", mine)...).fails(t, "a file that all may read", exitMiss, "chmod 0640 it, or 0600")
	if log := p.log.String(); strings.Contains(log, web) {
		t.Error("the log shows the token")
	}
}

// TestAccessOfManyGroups checks that all groups of a process count, even if they exceed a
// buffer.
func TestAccessOfManyGroups(t *testing.T) {
	needRoot(t)
	p, _, _ := ruled(t)
	many := person{uid: 60099, gid: 60099}
	for i := range 1000 {
		many.groups = append(many.groups, uint32(61000+i))
	}
	q := setRequest("k", "v")
	q.Namespace = []byte("users")
	c, _ := p.dialAs(many, "")
	if r := c.call(q); r.Status != wire.Unauthorized {
		t.Errorf("a thousand groups, and none of those named: %v", r.Status)
	}
	many.groups = append(many.groups, 60020)
	c, _ = p.dialAs(many, "")
	c.must(q)
}
