package main

import (
	"fmt"
	"io"
	"math"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// peerStranger speaks to a sidecar's peer port.
type peerStranger struct {
	t  *testing.T
	nc net.Conn
}

func callAsStranger(t *testing.T, address string) *peerStranger {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(testenv.Deadline())
	return &peerStranger{t, nc}
}

func (s *peerStranger) call(op wire.Op, message any) (r wire.Reply) {
	s.t.Helper()
	body, err := wire.MarshalBody(message)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.nc.Write(wire.AppendRequest(nil, &wire.Request{ID: 1, Op: op, Body: body})); err != nil {
		s.t.Fatal(err)
	}
	var head [wire.LengthSize]byte
	if _, err := io.ReadFull(s.nc, head[:]); err != nil {
		s.t.Fatal(err)
	}
	b := make([]byte, wire.FrameLength(head[:]))
	if _, err := io.ReadFull(s.nc, b); err != nil {
		s.t.Fatal(err)
	}
	if err := wire.DecodeReply(op, b, &r); err != nil {
		s.t.Fatal(err)
	}
	return r
}

// theirs finds a setting of the cluster in the reason for a refused greeting.
var theirs = regexp.MustCompile(`(\w+) is "[^"]*" there and "([^"]*)" here`)

// TestStrangersClock: a stranger whose version clock is far ahead, in a greeting or
// later, is refused with the reason, and versions stay as they were.
func TestStrangersClock(t *testing.T) {
	ports, err := freePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	p := runSidecar(t, "--bind", loopback(ports[0]), "--peer-bind", loopback(ports[1]))
	c := p.dial()
	before := kv.Version(c.must(setRequest("k", "v")).Version)
	settings := map[string]string{}
	greet := func(clock uint64, floors ...wire.Floor) (*peerStranger, wire.Reply) {
		for {
			s := callAsStranger(t, loopback(ports[1]))
			r := s.call(wire.OpPeerHello, &wire.PeerHello{
				MinVersion: 1, MaxVersion: wire.PeerVersion, Cluster: "cachesidecar", From: kv.Process{Node: "stranger", Epoch: 7},
				Purpose: "poll", Settings: settings, WallMS: testenv.Date().UnixMilli(), Clock: clock, Floors: floors,
			})
			others := theirs.FindAllStringSubmatch(string(r.Message), -1)
			if len(others) == 0 {
				return s, r
			}
			for _, o := range others {
				settings[o[1]] = o[2]
			}
		}
	}
	refused := func(what string, r wire.Reply, parts ...string) {
		t.Helper()
		for _, part := range append(parts, "max_clock_skew") {
			if r.Status != wire.Unauthorized || !strings.Contains(string(r.Message), part) {
				t.Errorf("%s: %v %s", what, r.Status, r.Message)
			}
		}
	}
	right := uint64(kv.FirstVersionAt(testenv.Date().UnixMilli()))
	for _, far := range []uint64{math.MaxUint64, uint64(kv.FirstVersionAt(testenv.Date().Add(time.Hour).UnixMilli()))} {
		_, r := greet(far)
		refused("a greeting", r, "stranger", fmt.Sprint(far), "start it anew")
		_, r = greet(right, wire.Floor{Version: far})
		refused("a flush in a greeting", r, "stranger", fmt.Sprint(far))
		for what, m := range map[string]struct {
			op   wire.Op
			body any
		}{
			"POLL":    {wire.OpPoll, &wire.Poll{WallMS: testenv.Date().UnixMilli(), Clock: far}},
			"ACQUIRE": {wire.OpAcquire, &wire.Acquire{Clock: far, Ballot: kv.Ballot{Process: kv.Process{Node: "stranger", Epoch: 7}}}},
			"AUTH":    {wire.OpAuth, &wire.Auth{Clock: far}},
			"NOTE":    {wire.OpNote, &wire.Note{WallMS: testenv.Date().UnixMilli(), Floor: wire.Floor{Version: far}}},
		} {
			s, r := greet(right)
			if r.Status != wire.OK {
				t.Fatalf("a greeting with the right clock: %v %s", r.Status, r.Message)
			}
			refused(what, s.call(m.op, m.body))
		}
	}
	// Nothing was flushed.
	if r := c.must(getRequest("k")); kv.Version(r.Version) != before {
		t.Errorf("what was written before has version %v, it was %v", kv.Version(r.Version), before)
	}
	after := kv.Version(c.must(setRequest("k", "w")).Version)
	if after <= before || after.Wall().After(testenv.Date().Add(time.Minute)) {
		t.Errorf("version %v after %v", after, before)
	}
}
