package session_test

import (
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/inspect"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/doors"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestHelloComesFirst checks what a connection may do before HELLO, and what HELLO says.
func TestHelloComesFirst(t *testing.T) {
	c := doors.Serve(t, onehost.Config{}).Stranger()
	hello := func(h wire.Hello) wire.Reply { return c.Call(wire.Request{Op: wire.OpHello, Hello: h}) }
	if r := c.Get("a"); r.Status != wire.BadRequest || !strings.Contains(string(r.Message), "say HELLO") {
		t.Errorf("GET before HELLO: %s %s", r.Status, r.Message)
	}
	if r := hello(wire.Hello{Versions: []int{99}}); r.Status != wire.Unsupported ||
		!strings.Contains(string(r.Message), "speaks [1]: upgrade the older") {
		t.Errorf("unknown version: %s %s", r.Status, r.Message)
	}
	if r := hello(wire.Hello{Versions: []int{99, 1}, Namespace: "NO"}); r.Status != wire.BadRequest {
		t.Errorf("a name that is none: %s %s", r.Status, r.Message)
	}
	if r := c.Get("a"); r.Status != wire.BadRequest {
		t.Errorf("GET after a HELLO that was refused: %s", r.Status)
	}
	if r := hello(wire.Hello{Versions: []int{99, 1}, Namespace: "mine"}); r.Status != wire.OK {
		t.Errorf("%s %s", r.Status, r.Message)
	}
	c.Set("a", []byte("1"))
	if r := c.Call(wire.Request{Op: wire.OpGet, Namespace: []byte("mine"), Key: []byte("a")}); string(r.Value) != "1" {
		t.Errorf("the default namespace of HELLO was not used: %s", r.Status)
	}
}

// TestWelcome checks that HELLO tells the limits, and that they are true.
func TestWelcome(t *testing.T) {
	c := doors.Serve(t, onehost.Config{MaxValue: 1000}).App()
	r := c.Call(wire.Request{Op: wire.OpHello, Hello: wire.Hello{Versions: []int{1}}})
	var w wire.Welcome
	testenv.Must(t, wire.UnmarshalBody(r.Body, &w))
	if w.Node != "host" || w.Server != "1.2.3" || w.Version != 1 || w.Limits.Value != 1000 || w.Limits.Key != kv.MaxKeyLen {
		t.Errorf("%+v", w)
	}
	c.Set("k", make([]byte, w.Limits.Value))
	if r := c.Call(wire.Request{Op: wire.OpSet, Key: []byte("k"), Value: make([]byte, w.Limits.Value+1)}); r.Status != wire.TooLarge {
		t.Errorf("one byte more: %s", r.Status)
	}
	for op := wire.OpPing; !op.Peer(); op++ {
		if op == wire.OpLeaving || op == wire.OpReload || op == wire.OpDrain || op == wire.OpVerify {
			continue // answered at the end of the sidecar, and by a whole one
		}
		q := wire.Request{Op: op, Key: []byte("k"), Keys: doors.Keys("k"), Namespace: []byte("default")}
		if r := c.Call(q); (r.Status != wire.Unsupported) != (op.Known() && w.Serves(op)) {
			t.Errorf("%s with the features %v: %s %s", op, w.Features, r.Status, r.Message)
		}
	}
}

// administered are rules by which user 99 administers one namespace of two.
var administered = access.Config{Namespaces: map[string]access.Grants{
	"mine": {Admin: []string{"99"}}, "theirs": {Write: []string{"99"}}, access.Others: {Read: []string{}},
}}

// TestInspectionRights checks which callers may ask what a host stores and does.
func TestInspectionRights(t *testing.T) {
	for name, rules := range map[string]access.Config{"rules": administered, "no rules": {}} {
		h := doors.Serve(t, onehost.Config{Access: rules})
		users := map[int]*doors.Conn{99: h.User(99), 98: h.User(98)}
		for _, tc := range []struct {
			op   wire.Op
			uid  int
			ns   string
			o    wire.Options
			want bool // with rules; without rules only a host's administrator may
		}{
			{wire.OpHot, 99, "mine", 0, true}, {wire.OpHot, 99, "theirs", 0, false}, {wire.OpHot, 99, "theirs", wire.All, true},
			{wire.OpHot, 99, "new", 0, false}, {wire.OpHot, 98, "mine", wire.All, false},
			{wire.OpSlow, 99, "mine", 0, true}, {wire.OpSlow, 99, "theirs", 0, false}, {wire.OpSlow, 98, "mine", wire.All, false},
			{wire.OpKeys, 99, "mine", 0, true}, {wire.OpKeys, 99, "theirs", 0, false}, {wire.OpKeys, 99, "new", 0, false},
		} {
			r := users[tc.uid].Call(wire.Request{Op: tc.op, Namespace: []byte(tc.ns), Options: tc.o})
			want := wire.Unauthorized
			if tc.want && name == "rules" {
				want = wire.OK
			}
			if r.Status != want {
				t.Errorf("%s: %s of %s, options %d, by %d: %s %s, want %s", name, tc.op, tc.ns, tc.o, tc.uid, r.Status, r.Message, want)
			}
		}
	}
}

// TestHotRights checks that a caller sees the most read keys of the namespaces that it
// administers, and no others, and that bounds are checked.
func TestHotRights(t *testing.T) {
	h := doors.Serve(t, onehost.Config{Access: administered})
	root := h.App()
	for _, ns := range []string{"mine", "theirs"} {
		root.Call(wire.Request{Op: wire.OpSet, Namespace: []byte(ns), Key: []byte("k"), Value: []byte("v")})
		q := wire.Request{Op: wire.OpMGet, Namespace: []byte(ns)}
		for range 1000 {
			q.Keys = append(q.Keys, []byte("k"))
		}
		for range 5 {
			root.Call(q)
		}
	}
	hot := func(c *doors.Conn, limit uint32) (a wire.Hot) {
		t.Helper()
		r := c.Call(wire.Request{Op: wire.OpHot, Options: wire.All, Limit: limit})
		if err := wire.UnmarshalBody(r.Body, &a); err != nil {
			t.Fatal(r.Err(), err)
		}
		return a
	}
	if a := hot(root, 0); len(a.Keys) != 2 {
		t.Errorf("an administrator sees %v", a.Keys)
	}
	if a := hot(root, 1); len(a.Keys) != 1 {
		t.Errorf("n of 1 gives %v", a.Keys)
	}
	for _, q := range []wire.Request{{Limit: wire.MaxHot + 1}, {Namespace: []byte("NO")}} {
		if q.Op = wire.OpHot; root.Call(q).Status != wire.BadRequest {
			t.Errorf("%+v is not refused", q)
		}
	}
	if a := hot(h.User(99), 10); len(a.Keys) != 1 || a.Keys[0].Namespace != "mine" {
		t.Errorf("%v", a.Keys)
	}
}

// TestSlowRights checks that a caller sees calls in the namespaces that it administers,
// and that bounds are checked.
func TestSlowRights(t *testing.T) {
	h := doors.Serve(t, onehost.Config{Access: administered})
	for _, ns := range []string{"mine", "theirs", ""} {
		h.Admin.Requests.Note([]byte(ns), time.Second, h.Clock.Read(), func() inspect.SlowCall { return inspect.SlowCall{Op: "GET"} })
	}
	calls := func(c *doors.Conn, limit uint32) (a wire.Slow) {
		t.Helper()
		r := c.Call(wire.Request{Op: wire.OpSlow, Options: wire.All, Limit: limit})
		if err := wire.UnmarshalBody(r.Body, &a); err != nil {
			t.Fatal(r.Err(), err)
		}
		return a
	}
	if a := calls(h.User(99), 10); len(a.Requests) != 1 || a.Requests[0].Namespace != "mine" {
		t.Errorf("%+v", a.Requests)
	}
	root := h.App()
	if got := calls(root, 2); len(got.Requests) != 2 {
		t.Errorf("n of 2 gives %+v", got.Requests)
	}
	if r := root.Call(wire.Request{Op: wire.OpSlow, Limit: wire.MaxSlow + 1}); r.Status != wire.BadRequest {
		t.Errorf("n of %d: %s", wire.MaxSlow+1, r.Status)
	}
}
