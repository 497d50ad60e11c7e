package main

import (
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// stranger is a connection to the peer port.
type stranger struct {
	t  *testing.T
	nc net.Conn
}

// ask sends a request and reads the answer.
func (s *stranger) ask(q *wire.Request) (r wire.Reply, err error) {
	s.t.Helper()
	_ = s.nc.SetDeadline(testenv.Deadline())
	q.ID, q.TimeoutMS = 1, 1000
	if _, err := s.nc.Write(wire.AppendRequest(nil, q)); err != nil {
		return r, err
	}
	frame, err := readFrame(s.nc)
	if err != nil {
		return r, err
	}
	return r, wire.DecodeReply(q.Op, frame, &r)
}

// send is ask with a body.
func (s *stranger) send(op wire.Op, body any) (wire.Reply, error) {
	s.t.Helper()
	b := wire.MarshalBody(body)
	return s.ask(&wire.Request{Op: op, Body: b})
}

// greeting returns the greeting of a host with the cluster's settings.
func greeting(purpose string) *wire.PeerHello {
	wall := testenv.Date().UnixMilli()
	return &wire.PeerHello{
		MinVersion: 1, MaxVersion: wire.PeerVersion, Cluster: "cachesidecar", From: kv.Process{Node: "stranger", Epoch: kv.Epoch(wall)},
		Purpose: purpose, WallMS: wall, Clock: uint64(wall) << 22,
		Settings: map[string]string{"detection": "3s", "max_staleness": "2s", "partition_policy": "available", "partitions": strconv.Itoa(kv.Partitions)},
	}
}

// meet connects to a host and greets it.
func meet(t *testing.T, address, purpose string) *stranger {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	s := &stranger{t, nc}
	if r, err := s.send(wire.OpPeerHello, greeting(purpose)); err != nil || r.Status != wire.OK {
		t.Fatalf("without a key it is not greeted: %s %s, %v", r.Status, r.Message, err)
	}
	return s
}

// TestLengthyStrangerInAnothersName checks that a process can speak only for itself, with or
// without a key. A forged GOODBYE once split the cluster.
func TestLengthyStrangerInAnothersName(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	list := runCluster(t, "a", "b")
	a, b := list[0].member("a"), list[0].member("b")
	epoch, err := strconv.ParseUint(b.Epoch, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	of := kv.Process{Node: "b", Epoch: kv.Epoch(epoch)}
	ballot := kv.Ballot{Clock: kv.Version(testenv.Date().UnixMilli()) << 22, Process: of}
	for _, tc := range []struct {
		purpose string
		op      wire.Op
		body    any
	}{
		{"poll", wire.OpGoodbye, &wire.Goodbye{From: of}},
		{"poll", wire.OpAcquire, &wire.Acquire{Ballot: ballot, Partitions: []byte{1, 0}}},
		{"poll", wire.OpAuth, &wire.Auth{Ownerships: []wire.Promise{{Ballot: ballot, Partitions: []byte{1, 0}}}}},
		{"call", wire.OpPull, &wire.Pull{Ballot: ballot}},
		{"call", wire.OpFetch, &wire.Fetch{Ballot: ballot, Namespace: "default", Key: []byte("k")}},
	} {
		r, err := meet(t, a.Address, tc.purpose).send(tc.op, tc.body)
		if err != nil || r.Status != wire.Unauthorized || !strings.Contains(string(r.Message), "in the name of b: this connection is of stranger") {
			t.Errorf("%s: %s %s, %v", tc.op, r.Status, r.Message, err)
		}
	}
	whole(t, list...)
	if m := list[0].member("b"); m.State != "in" || m.Epoch != b.Epoch {
		t.Errorf("after a goodbye in its name: %+v", m)
	}
}
