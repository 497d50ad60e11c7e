package hosts

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// app connects to a node as an app does.
func (v *vnode) app(t *testing.T) *rawConn { return v.appOf(t, quota.App{}) }

// appOf is app for a process of a user.
func (v *vnode) appOf(t *testing.T, app quota.App) *rawConn {
	t.Helper()
	s := v.s
	server := server.New(server.Limits{}, s.cfg.Log, func(net.Conn) (server.Handler, error) {
		h := s.sessions.Of(byRoot(s.engine), nil)
		h.App = app.Number()
		return h, nil
	})
	ln, err := v.host.Listen(0)
	testenv.Must(t, err)
	go func() { _ = server.Serve(context.Background(), ln) }() // ends with the host
	nc, err := v.w.net.Host("10.9.0.1").Dial(t.Context(), ln.Addr().String())
	testenv.Must(t, err)
	c := &rawConn{t: t, nc: nc, r: bufio.NewReader(nc)}
	if r := c.call(&wire.Request{Op: wire.OpHello, Hello: wire.Hello{Versions: []int{1}}}); r.Status != wire.OK {
		t.Fatalf("HELLO: %s %s", r.Status, r.Message)
	}
	return c
}

// TestLengthyVirtualReadBehindAckAll checks reads behind a write with ack=all. Just after an
// ownership has begun, such a write takes as long as old leases live. Later requests of
// the same connection for the key do not wait for that, and see the write.
func TestLengthyVirtualReadBehindAckAll(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 5*time.Second)
	for policy, voters := range policies {
		for _, through := range []string{"holder", "other"} {
			for _, enough := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, through the %s, in time %v", policy, through, enough), func(t *testing.T) {
					inQuietWorld(t, 3, func(t *testing.T, w *world) { readBehindAckAll(t, w, through == "other", enough) }, voters...)
				})
			}
		}
	}
}

func readBehindAckAll(t *testing.T, w *world, remote, enough bool) {
	time.Sleep(10 * time.Second) // so that no other ownership is young
	before := w.ownerOf("k")
	v := w.other("k")
	app := before.app(t)
	for _, k := range []string{"k", "n"} {
		if r := v.set(k, "1"); r.Status != wire.OK {
			t.Fatalf("SET: %s %s", r.Status, r.Message)
		}
	}
	before.s.engine.Node.SetWeight(1)
	next := w.next(before, "k")
	if !remote {
		app = next.app(t)
	}
	others := fmt.Sprint("other", 0) // another host owns it
	for i := 1; w.ownerOf(others) == next; i++ {
		others = fmt.Sprint("other", i)
	}
	timeout := uint32(1000)
	if enough {
		timeout = 4000
	}
	k := []byte("k")
	began := time.Now()
	writes := map[uint64]wire.Op{}
	behind := map[uint64]string{}
	write := func(q *wire.Request, wants string) { // a write and two reads behind it
		q.Options, q.TimeoutMS, q.TTLMS = wire.AckAll, timeout, wire.TTLDefault
		app.send(q)
		writes[app.id] = q.Op
		app.send(&wire.Request{Op: wire.OpGet, Key: k})
		behind[app.id] = wants
		app.send(&wire.Request{Op: wire.OpMGet, Keys: [][]byte{k, []byte(others), []byte("none")}})
		behind[app.id] = wants
	}
	write(&wire.Request{Op: wire.OpSet, Key: k, Value: []byte("2")}, "2")
	write(&wire.Request{Op: wire.OpIncr, Key: k, Delta: 40}, "42")
	write(&wire.Request{Op: wire.OpTouch, Key: k}, "42")
	write(&wire.Request{Op: wire.OpDelete, Keys: [][]byte{k, []byte(others)}}, "")
	write(&wire.Request{Op: wire.OpSet, Key: k, Value: []byte("3")}, "3")
	for len(writes)+len(behind) > 0 {
		frame := app.frame()
		id, _ := wire.PeekID(frame)
		took := time.Since(began)
		if op, ok := writes[id]; ok {
			delete(writes, id)
			r := app.decode(op, frame)
			if op == wire.OpDelete && r.Status == wire.OK {
				r = r.Items[0]
			}
			switch {
			case enough && (r.Status != wire.OK || took < w.bound*9/10 || took > w.bound+100*time.Millisecond):
				t.Errorf("%s: %s %s, after %v", op, r.Status, r.Message, took)
			case !enough && (r.Status != wire.Timeout || took > time.Second):
				t.Errorf("%s: %s %s, after %v; want TIMEOUT", op, r.Status, r.Message, took)
			}
			continue
		}
		want, ok := behind[id]
		if !ok {
			t.Fatalf("an answer to %d", id)
		}
		delete(behind, id)
		op := wire.OpGet
		if id%3 == 1 { // HELLO had the first ID
			op = wire.OpMGet
		}
		r := app.decode(op, frame)
		if op == wire.OpMGet && r.Status == wire.OK {
			r = r.Items[0]
		}
		if string(r.Value) != want || want == "" && r.Status != wire.Miss {
			t.Errorf("%s %d: %s %q, want %q", op, id, r.Status, r.Value, want)
		}
		if took > 100*time.Millisecond {
			t.Errorf("%s %d, behind a write with ack=all, took %v", op, id, took)
		}
	}
}
