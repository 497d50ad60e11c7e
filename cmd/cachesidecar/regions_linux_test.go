package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// A user of the tests of shared memory, and another one. Both are in no group.
var (
	victim   = person{uid: 60011, gid: 60011}
	attacker = person{uid: 60012, gid: 60012}
)

// mapped is the shared memory of a connection, as its app has it.
type mapped struct {
	bytes []byte
	path  string
}

// region asks for the shared memory over a connection of its own, and maps it. Without one it
// returns the answer.
func (p *process) region(who person, token string) (m mapped, r wire.Reply) {
	p.t.Helper()
	c, _ := p.dialAs(who, token)
	defer c.close()
	testenv.Must(p.t, c.send(&wire.Request{Op: wire.OpShared}))
	b, oob := make([]byte, 64<<10), make([]byte, syscall.CmsgSpace(4))
	n, oobn, _, _, err := c.nc.ReadMsgUnix(b, oob)
	testenv.Must(p.t, err)
	testenv.Must(p.t, wire.DecodeReply(wire.OpShared, b[wire.LengthSize:n], &r))
	if r.Status != wire.OK {
		return m, r
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		p.t.Fatal(messages, err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		p.t.Fatal(fds, err)
	}
	defer unix.Close(fds[0])
	var offer wire.Shared
	testenv.Must(p.t, wire.UnmarshalBody(r.Body, &offer))
	m.path = offer.Path
	if m.bytes, err = unix.Mmap(fds[0], 0, int(offer.Size), unix.PROT_READ, unix.MAP_SHARED); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = unix.Munmap(m.bytes) })
	return m, r
}

// has reports whether the region has the bytes of a text.
func (m mapped) has(text string) bool { return bytes.Contains(m.bytes, []byte(text)) }

// publish stores a value in a namespace and reads it until it is in a region.
func (p *process) publish(c *conn, m mapped, ns, key, value string) {
	p.t.Helper()
	c.must(&wire.Request{Op: wire.OpSet, Namespace: []byte(ns), Key: []byte(key), Value: []byte(value), TTLMS: wire.TTLDefault})
	testenv.Eventually(p.t, key+" in the region", func() bool {
		c.must(&wire.Request{Op: wire.OpGet, Namespace: []byte(ns), Key: []byte(key), Options: wire.Share})
		return m.has(value)
	})
}

// openToAll starts a sidecar whose socket all may open, with more lines of configuration.
func openToAll(t *testing.T, lines string) (p *process, config string) {
	t.Helper()
	dir := tempDir(t)
	testenv.Must(t, os.Chmod(dir, 0o755))
	config = filepath.Join(dir, "c.yaml")
	testenv.Must(t, os.WriteFile(config, []byte("socket_mode: 0666\n"+lines), 0o600))
	return runSidecarAt(t, filepath.Join(dir, "s"), "--config", config), config
}

// A region shows nothing but what the user itself has asked for: no other user learns names of
// keys there, which KEYS would not tell it. Only the sidecar's user can open the file.
func TestRegionsOfUsers(t *testing.T) {
	t.Parallel()
	needRoot(t)
	p, _ := openToAll(t, "access: {hidden: {write: [60011]}}\n")
	mine, _ := p.region(victim, "")
	his, _ := p.region(attacker, "")
	c, _ := p.dialAs(victim, "")
	p.publish(c, mine, "sessions", "session:f2a9", "user=alice;role=admin")
	p.publish(c, mine, "hidden", "session:77b1", "user=bob;role=admin")
	for _, m := range []mapped{his, second(p.region(attacker, ""))} {
		for _, text := range []string{"session:", "role=admin", "hidden"} {
			if m.has(text) {
				t.Errorf("another user reads %q in its region", text)
			}
		}
	}
	if again := second(p.region(victim, "")); again.path != mine.path || !again.has("role=admin") {
		t.Errorf("the region of the same user is %s, and was %s", again.path, mine.path)
	}
	if fi, err := os.Stat(mine.path); err != nil || fi.Mode().Perm() != 0o600 || his.path == mine.path {
		t.Errorf("%v, %v; that of the other user is %s", fi, err, his.path)
	}
	other, _ := p.dialAs(attacker, "")
	// The other user knows a key: it finds the value in its own region then.
	testenv.Eventually(t, "the value in the other region", func() bool {
		r := other.must(&wire.Request{Op: wire.OpGet, Namespace: []byte("sessions"), Key: []byte("session:f2a9"), Options: wire.Share})
		return len(r.Value) > 0 && his.has("user=alice")
	})
	c.must(&wire.Request{Op: wire.OpDelete, Namespace: []byte("sessions"), Keys: [][]byte{[]byte("session:f2a9")}})
	if mine.has("alice") || his.has("alice") {
		t.Error("a value is still there after DELETE")
	}
}

func second(m mapped, _ wire.Reply) mapped { return m }

// Apps of one user that show other tokens, or have other rights, have other regions. An app that may
// read nothing gets none.
func TestRegionsOfRights(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := tempDir(t)
	lines := "access:\n  sessions: {write: [group:60020, token:one, token:two]}\n  '*': {read: []}\ntokens:\n"
	for _, name := range []string{"one", "two"} {
		path := filepath.Join(dir, name)
		testenv.Must(t, os.WriteFile(path, []byte(name+"-0123456789abcdef"), 0o600))
		lines += fmt.Sprintf("  %s: {file: %s}\n", name, path)
	}
	p, _ := openToAll(t, lines)
	member := victim
	member.groups = []uint32{60020}
	paths := map[string]string{}
	for name, of := range map[string]struct {
		who   person
		token string
	}{
		"a group": {member, ""}, "a token": {victim, "one-0123456789abcdef"}, "another token": {victim, "two-0123456789abcdef"},
	} {
		m, r := p.region(of.who, of.token)
		if m.path == "" {
			t.Fatalf("%s: %v %s", name, r.Status, r.Message)
		}
		if before := paths[m.path]; before != "" {
			t.Errorf("%s and %s have the same region", name, before)
		}
		paths[m.path] = name
	}
	if _, r := p.region(victim, ""); r.Status != wire.Unauthorized {
		t.Errorf("without any right: %v %s", r.Status, r.Message)
	}
}

// The user that has a region takes half of the rest with each further one, and leaves some to
// others. One user more than there is room for is told so.
func TestRegionsHaveRoom(t *testing.T) {
	t.Parallel()
	needRoot(t)
	p, _ := openToAll(t, "shared_size: 4MiB\n")
	for i, size := range []int{3 << 20, 1 << 20} {
		if m, r := p.region(person{uid: uint32(60030 + i), gid: 60030}, ""); len(m.bytes) != size {
			t.Errorf("user %d: %d bytes, %v %s", i, len(m.bytes), r.Status, r.Message)
		}
	}
	_, r := p.region(attacker, "")
	if want := "other users, tokens or rights have the 4.0 MiB of shared_size: raise it"; r.Status != wire.Busy ||
		!strings.Contains(string(r.Message), want) {
		t.Errorf("%v %s, want %s", r.Status, r.Message, want)
	}
}

// A reload that takes a right away ends the regions and erases them before it is done. One with
// the same rules does not.
func TestReloadErasesRegions(t *testing.T) {
	t.Parallel()
	needRoot(t)
	rules := "access: {sessions: {write: [60011, %s]}}\n"
	p, config := openToAll(t, fmt.Sprintf(rules, "60012"))
	c, _ := p.dialAs(attacker, "")
	m, _ := p.region(attacker, "")
	p.publish(c, m, "sessions", "old", "secret-old")
	if o := p.as(root, "reload"); o.status != exitDone {
		t.Fatal(o)
	}
	if !m.has("secret-old") {
		t.Error("a reload of the same rules ends the region")
	}
	testenv.Must(t, os.WriteFile(config, []byte("socket_mode: 0666\n"+fmt.Sprintf(rules, "60013")), 0o600))
	if o := p.as(root, "reload"); o.status != exitDone {
		t.Fatal(o)
	}
	if m.has("secret-old") {
		t.Error("an old value can be read after the reload")
	}
	other, _ := p.dialAs(victim, "")
	mine, _ := p.region(victim, "")
	p.publish(other, mine, "sessions", "new", "secret-new")
	if m.has("secret-new") {
		t.Error("a new value can be read in the old region")
	}
	if m, _ := p.region(attacker, ""); m.has("secret") || m.has("sessions") {
		t.Error("a value can be read in the next region")
	}
}

// FLUSH erases what it ends.
func TestFlushErasesRegions(t *testing.T) {
	t.Parallel()
	p := runSidecar(t)
	c := p.dial()
	m, _ := p.region(self(), "")
	for name, q := range map[string]*wire.Request{
		"of a namespace": {Op: wire.OpFlush, Namespace: []byte("sessions")},
		"of the cluster": {Op: wire.OpFlush, Namespace: []byte("sessions"), Options: wire.Cluster},
		"of all":         {Op: wire.OpFlush, Options: wire.All},
	} {
		for i := range 5 {
			p.publish(c, m, "sessions", fmt.Sprint("key-", i), fmt.Sprintf("secret-%d", i))
		}
		if name != "of all" {
			p.publish(c, m, "others", "stays", "open-value")
		}
		c.must(q)
		if m.has("secret-") || m.has("key-") {
			t.Errorf("FLUSH %s leaves values in the region", name)
		}
		if !m.has("open-value") && name != "of all" {
			t.Errorf("FLUSH %s erases another namespace", name)
		}
	}
}

// self is the user of the tests.
func self() person { return person{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())} }

// Apps that ask for the shared memory and do not receive the descriptor have a bounded number of
// descriptors under way. Others get theirs.
func TestUnreceivedDescriptors(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	needRoot(t)
	p, _ := openToAll(t, "")
	share := func(name string) cachesidecar.ShareStats {
		t.Helper()
		var s cachesidecar.Stats
		testenv.Must(t, json.Unmarshal([]byte(p.at("stats", "--json").out), &s))
		i := slices.IndexFunc(s.Shares, func(s cachesidecar.ShareStats) bool { return s.Name == name })
		return s.Shares[i]
	}
	places := func() cachesidecar.ShareStats { return share("descriptors") }
	limit := places().Limit
	most := limit - limit/16 // half of the last eighth is not for further connections
	ask := wire.AppendRequest(wire.AppendRequest(nil, helloRequest()), &wire.Request{ID: 2, Op: wire.OpShared})
	ask = wire.AppendRequest(wire.AppendRequest(ask, &wire.Request{ID: 3, Op: wire.OpShared}), &wire.Request{ID: 4, Op: wire.OpPing})
	var hogs []*conn
	for range most + 20 {
		c, err := p.connectAs(attacker)
		testenv.Must(t, err)
		t.Cleanup(c.close)
		c.write(ask)
		hogs = append(hogs, c)
	}
	testenv.Eventually(t, "all descriptors that one user may have", func() bool { return places().Used >= most })
	others := func(when string) {
		t.Helper()
		if m, r := p.region(victim, ""); m.bytes == nil {
			t.Errorf("%s another user gets %v %s", when, r.Status, r.Message)
		}
		if n := places(); n.Used > most+1 || n.Most != fmt.Sprint("uid ", attacker.uid) {
			t.Errorf("%s: %+v, at most %d are one user's", when, n, most)
		}
		if _, r := p.region(attacker, ""); r.Status != wire.Busy || !strings.Contains(string(r.Message), "descriptors of the shared memory") {
			t.Errorf("%s: %v %s", when, r.Status, r.Message)
		}
	}
	others("while they are connected")
	open := share("connections").Used
	for _, c := range hogs { // the descriptors stay on their way, so the connections keep their places
		testenv.Must(t, c.nc.CloseWrite())
	}
	others("after the end of what they send")
	if n := share("connections").Used; n < open-2 { // those of others come and go
		t.Errorf("%d connections are left of %d: their descriptors are on their way", n, open)
	}
	for _, c := range hogs {
		c.close()
	}
	testenv.Eventually(t, "the places of those that have gone", func() bool {
		if m, r := p.region(attacker, ""); m.bytes == nil && r.Status != wire.Busy {
			t.Fatal(r.Status, string(r.Message))
		}
		return places().Used <= 1
	})
}
