package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/peertest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// These tests are strangers on the peer port of real processes: what they may do without
// a cluster key, and that they can do nothing with one.

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
	head := make([]byte, wire.LengthSize)
	if _, err := io.ReadFull(s.nc, head); err != nil {
		return r, err
	}
	frame := make([]byte, wire.FrameLength(head))
	if _, err := io.ReadFull(s.nc, frame); err != nil {
		return r, err
	}
	return r, wire.DecodeReply(q.Op, frame, &r)
}

// send is ask with a body.
func (s *stranger) send(op wire.Op, body any) (wire.Reply, error) {
	s.t.Helper()
	b, err := wire.MarshalBody(body)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.ask(&wire.Request{Op: op, Body: b})
}

// greeting returns the greeting of a host with the cluster's settings.
func greeting(purpose string) *wire.PeerHello {
	wall := testenv.Date().UnixMilli()
	return &wire.PeerHello{
		MinVersion: 1, MaxVersion: wire.PeerVersion, Cluster: "cachesidecar", From: kv.Process{Node: "stranger", Epoch: kv.Epoch(wall)},
		Purpose: purpose, WallMS: wall, Clock: uint64(wall) << 22,
		Settings: map[string]string{"detection": "3s", "max_staleness": "2s", "partition_policy": "available", "partitions": strconv.Itoa(partitions)},
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

// TestLengthyStrangerWords checks that a stranger's long names are neither answered nor logged,
// and that a silent stranger is disconnected.
func TestLengthyStrangerWords(t *testing.T) {
	testenv.Takes(t, 10*time.Second)
	list := runCluster(t, "a", "b")
	address := list[0].member("a").Address
	for _, n := range []int{300, 200 << 10, 8 << 20} {
		h := greeting("call")
		h.From.Node = kv.NodeID(strings.Repeat("\x01", n))
		body, err := wire.MarshalBody(h)
		if err != nil {
			t.Fatal(err)
		}
		nc, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_ = nc.SetDeadline(testenv.Deadline())
		// The connection may be closed meanwhile.
		_, _ = nc.Write(wire.AppendRequest(nil, &wire.Request{ID: 1, Op: wire.OpPeerHello, Body: body}))
		answer, err := io.ReadAll(nc)
		if len(answer) > 4<<10 || bytes.Contains(answer, []byte{1, 1}) || errors.Is(err, net.ErrClosed) {
			t.Errorf("a name of %d bytes: %d bytes are answered, %v", n, len(answer), err)
		}
		_ = nc.Close()
	}
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(testenv.Deadline())
	if b, err := io.ReadAll(nc); err != nil && !strings.Contains(err.Error(), "reset") || len(b) > 0 {
		t.Errorf("without a word: %d bytes, %v", len(b), err)
	}
	if log := list[0].log.String(); len(log) > 64<<10 || strings.Contains(log, "\x01") {
		t.Errorf("the log has %d bytes", len(log))
	}
	var st cachesidecar.Stats
	if list[0].document(&st, "stats"); st.Cluster.Links.Late == 0 {
		t.Errorf("%+v", st.Cluster.Links)
	}
}

// TestLengthyStrangerWithoutKey checks that with a cluster key a stranger learns and changes
// nothing, and that the hosts with the key continue.
func TestLengthyStrangerWithoutKey(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	path := filepath.Join(tempDir(t), "cluster.key")
	if o := command(t, "", "key", "generate", "--out", path); o.status != exitDone {
		t.Fatalf("%v", o)
	}
	list := runClusterWith(t, []string{"--cluster-key-file", path}, "a", "b")
	list[0].must("set", "k", "secret")
	address := list[0].member("a").Address
	other := peertest.NewAuthority(t, "other")
	shows := map[string][]tls.Certificate{
		"none":          nil,
		"another key's": {other.Certificate(t, []string{"b"})},
	}
	for name, show := range shows {
		for _, purpose := range []string{"poll", "call"} {
			nc, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, Certificates: show, NextProtos: []string{"cachesidecar-peer/1"}})
			if err != nil {
				t.Fatalf("certificate %s: the handshake ends before the certificate is looked at: %v", name, err)
			}
			defer nc.Close()
			s := &stranger{t, nc}
			if r, err := s.send(wire.OpPeerHello, greeting(purpose)); err == nil {
				t.Errorf("certificate %s: %s %s", name, r.Status, r.Message)
			}
		}
	}
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	s := &stranger{t, nc}
	if r, err := s.send(wire.OpPeerHello, greeting("call")); err != nil || r.Status != wire.Unauthorized || !strings.Contains(string(r.Message), "give all hosts the same cluster_key_file") {
		t.Errorf("in plain: %s %q, %v", r.Status, r.Message, err)
	}
	whole(t, list...)
	for _, p := range list {
		if o := p.must("get", "k"); o != "secret" {
			t.Errorf("%q", o)
		}
	}
	testenv.Succeeds(t, "the count of handshakes", func() error {
		var st cachesidecar.Stats
		if list[0].document(&st, "stats"); st.Cluster.Links.Failed < 5 || st.Cluster.Links.Handshakes < 2 {
			return fmt.Errorf("%+v", st.Cluster.Links)
		}
		return nil
	})
	if log := list[0].log.String(); strings.Contains(log, "secret") {
		t.Error("the log has what was stored")
	}
}
