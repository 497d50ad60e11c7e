package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	gt "github.com/cachesidecar/cachesidecar/internal/testing/gossiptest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Strangers attack hosts that have a cluster key: without a key, with another key, with a
// key that a rotation has removed, and with recorded messages, whole or in part.

// A stranger must not learn these.
const (
	firstHost, secondHost = "host-alpha", "host-beta"
	storedKey, storedText = "key-of-an-app", "value-of-an-app"
)

// keyedPair is two hosts that have a key file and one entry.
type keyedPair struct {
	t     *testing.T
	hosts []*process
	page  string // of the first host
	keys  string // path of the key file

	gossip, peer []string // addresses
}

// newKeyedPair starts the hosts. flags are additional flags of each.
func newKeyedPair(t *testing.T, text string, flags ...[]string) *keyedPair {
	t.Helper()
	c := &keyedPair{t: t, page: testenv.FreeAddress(t), keys: filepath.Join(tempDir(t), "cluster.key")}
	c.write(text)
	c.gossip = []string{testenv.FreeAddress(t), testenv.FreeAddress(t)}
	c.peer = []string{testenv.FreeAddress(t), testenv.FreeAddress(t)}
	for i, name := range []string{firstHost, secondHost} {
		args := []string{
			"--node", name, "--l2-size", "16MiB", "--cluster-key-file", c.keys,
			"--bind", c.gossip[i], "--peer-bind", c.peer[i], "--join", strings.Join(c.gossip, ","),
		}
		if i == 0 {
			args = append(args, "--http", c.page)
		}
		if i < len(flags) {
			args = append(args, flags[i]...)
		}
		c.hosts = append(c.hosts, runSidecar(t, args...))
	}
	whole(t, c.hosts...)
	c.hosts[0].must("set", storedKey, storedText)
	return c
}

// write replaces the key file.
func (c *keyedPair) write(text string) {
	c.t.Helper()
	if err := errors.Join(os.WriteFile(c.keys+"-", []byte(text), 0o600), os.Rename(c.keys+"-", c.keys)); err != nil {
		c.t.Fatal(err)
	}
}

// state returns what a stranger must not change: on each host the members, the entry and
// its place, and the counts of partitions, entries and requests.
func (c *keyedPair) state() string {
	c.t.Helper()
	var b strings.Builder
	for _, p := range c.hosts {
		var place cachesidecar.Place
		var st cachesidecar.Stats
		p.document(&place, "ring", storedKey)
		p.document(&st, "stats")
		s := &st.Cluster
		fmt.Fprintf(&b, "%+v %+v %q; ", p.members(), place, p.must("get", storedKey))
		fmt.Fprintf(&b, "in %v, members %d, held %d begun %d ended %d, conflicts %d, flushes and events %d, entries %d",
			s.In, s.Members, s.Owned, s.Begun, s.Ended, s.Conflicts, s.Invalidations.Head, st.L2.Entries)
		for _, n := range st.Namespaces {
			fmt.Fprintf(&b, ", %s: %d entries, %d writes, %d deletes", n.Name, n.Entries, n.Writes, n.Deletes)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// uses counts the goroutines and the descriptors of the first host.
func (c *keyedPair) uses() (goroutines, descriptors int) {
	c.t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", c.hosts[0].cmd.Process.Pid))
	if err != nil {
		c.t.Fatal(err)
	}
	return int(metric(c.t, c.page, "go_goroutines")), len(list)
}

// unchanged runs strangers, and fails the test unless the hosts are as before: at once in
// their state, and after a while in the resources that they use. It allows for a few
// more, because a renewal of the connections between the hosts changes their number for a
// moment. A host that stood still has rightly given up what it owned.
func (c *keyedPair) unchanged(what string, strangers func()) {
	c.t.Helper()
	before, stood := c.state(), pauses(c.hosts...)
	goroutines, descriptors := c.uses()
	strangers()
	if after := c.state(); after != before && pauses(c.hosts...) == stood {
		c.t.Errorf("%s: the hosts have changed; before:\n%s\nafter:\n%s", what, before, after)
	}
	testenv.Succeeds(c.t, what+": goroutines and descriptors as before", func() error {
		if g, d := c.uses(); g > goroutines+6 || d > descriptors+3 {
			return fmt.Errorf("%d goroutines, before: %d; %d descriptors, before: %d", g, goroutines, d, descriptors)
		}
		return nil
	})
}

// outsider is a stranger with a key of its own, and all bytes that it has received.
type outsider struct {
	t     *testing.T
	set   *peer.Credentials
	heard []byte
}

// newOutsider returns an outsider with the credentials that a key file gives to a node.
func newOutsider(t *testing.T, node, text string) *outsider {
	t.Helper()
	path := filepath.Join(tempDir(t), "stranger.key")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := peer.KeyPaths{ClusterKey: path}.Read().Credentials(node, testenv.Date())
	if err != nil {
		t.Fatal(err)
	}
	return &outsider{t: t, set: set}
}

// learnt fails the test if the received bytes name a host, a key or a value.
func (o *outsider) learnt(what string) {
	o.t.Helper()
	for _, secret := range []string{firstHost, secondHost, storedKey, storedText} {
		if bytes.Contains(o.heard, []byte(secret)) {
			o.t.Errorf("%s: a stranger is sent %q", what, secret)
		}
	}
}

// says sends bytes on a new connection, and returns what the other side answers until it
// closes.
func (o *outsider) says(address string, b []byte) []byte {
	o.t.Helper()
	nc, err := net.DialTimeout("tcp", address, testenv.Patience)
	if err != nil {
		o.t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(testenv.Deadline())
	_, _ = nc.Write(b) // it may be closed meanwhile
	_ = nc.(*net.TCPConn).CloseWrite()
	answer, err := io.ReadAll(nc)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		o.t.Errorf("%d bytes: the connection stays", len(b))
	}
	o.heard = append(o.heard, answer...)
	return answer
}

// packets sends datagrams from one socket, and returns the first answer.
func (o *outsider) packets(address string, wait time.Duration, list ...[]byte) []byte {
	o.t.Helper()
	nc, err := net.Dial("udp", address)
	if err != nil {
		o.t.Fatal(err)
	}
	defer nc.Close()
	for _, b := range list {
		_, _ = nc.Write(b)
	}
	answer := make([]byte, 64<<10)
	_ = nc.SetReadDeadline(time.Now().Add(wait))
	n, _ := nc.Read(answer)
	o.heard = append(o.heard, answer[:n]...)
	return answer[:n]
}

// shake opens a TLS connection with the outsider's certificate.
func (o *outsider) shake(address string, edits ...func(*tls.Config)) (*tls.Conn, error) {
	cfg := &tls.Config{
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{"cachesidecar-peer/1"},
		Certificates: []tls.Certificate{o.set.Certificate},
	}
	for _, edit := range edits {
		edit(cfg)
	}
	nc, err := net.DialTimeout("tcp", address, testenv.Patience)
	if err != nil {
		return nil, err
	}
	_ = nc.SetDeadline(testenv.Deadline())
	c := tls.Client(nc, cfg)
	if err := c.Handshake(); err != nil {
		_ = nc.Close()
		return nil, err
	}
	for _, cert := range c.ConnectionState().PeerCertificates {
		o.heard = append(o.heard, cert.Raw...)
	}
	return c, nil
}

// lies returns gossip messages that would change members, or cause such changes.
func lies(own string) [][]byte {
	alive := func(name string, incarnation uint32) []byte {
		return gt.Alive(name, loopbackIP, 21998, incarnation, gt.Meta("127.0.0.1:1", 1<<60, 1<<32-1, true, 1))
	}
	return [][]byte{
		gt.PingOf(own, firstHost), alive(own, 1), alive(secondHost, 1<<31), gt.Gone(gt.DeadType, secondHost, own, 1<<32-1),
		gt.Gone(gt.SuspectType, firstHost, own, 1<<32-1), append([]byte{gt.User, 3}, make([]byte, 100)...),
	}
}

// greets sends a host's requests on a connection after the handshake, and returns the
// statuses of the answers.
func (o *outsider) greets(nc net.Conn, node string, purpose string) (statuses []wire.Status) {
	o.t.Helper()
	s := &stranger{o.t, nc}
	hello := greeting(purpose)
	hello.From.Node = kv.NodeID(node)
	if o.set != nil {
		const setting = "the digest of the seed in cluster_key_file (after turning a key on or off, restart all hosts)"
		hello.Settings[setting] = peer.SeedDigest(o.set.Seed)
	}
	body := wire.MarshalBody(hello)
	for _, q := range []*wire.Request{
		{Op: wire.OpPeerHello, Body: body}, {Op: wire.OpGet, Namespace: []byte("default"), Key: []byte(storedKey)},
		{Op: wire.OpSet, Namespace: []byte("default"), Key: []byte(storedKey), Value: []byte("changed")}, {Op: wire.OpMembers},
	} {
		r, err := s.ask(q)
		if err != nil {
			return statuses
		}
		statuses = append(statuses, r.Status)
		o.heard = append(append(o.heard, r.Message...), r.Value...)
	}
	return statuses
}

// attacks does everything that a stranger with a key can do at a host's ports.
func (o *outsider) attacks(c *keyedPair, what string) {
	o.t.Helper()
	var packets [][]byte
	for _, m := range lies("stranger") {
		packets = append(packets, gt.Sealed(o.set.Gossip[0], cluster.DefaultCluster, m), labelled(m))
	}
	for i, at := range c.gossip {
		if b := o.packets(at, 200*time.Millisecond, packets...); len(b) > 0 {
			o.t.Errorf("%s: a datagram is answered with %d bytes", what, len(b))
		}
		state := gt.State("stranger", loopbackIP, 21998, 1, gt.Meta("127.0.0.1:1", 1<<60, 1, true, 1))
		for _, m := range [][]byte{gt.Exchange(1, state), gt.PingOf("stranger", firstHost)} {
			if b := o.says(at, gt.SealedStream(o.set.Gossip[0], cluster.DefaultCluster, m)); len(b) > 0 {
				if _, err := gt.Opened(o.set.Gossip[0], cluster.DefaultCluster, b); err == nil {
					o.t.Errorf("%s: it can read the answer to a stream", what)
				}
			}
			o.says(at, labelled(m))
		}
		for _, purpose := range []string{"poll", "call", "meet"} {
			nc, err := o.shake(c.peer[i])
			if err != nil {
				o.t.Errorf("%s: the handshake ends before the certificate is looked at: %v", what, err)
				continue
			}
			if got := o.greets(nc, secondHost, purpose); len(got) > 0 {
				o.t.Errorf("%s: answered %v", what, got)
			}
			_ = nc.Close()
		}
	}
	o.learnt(what)
}

// TestLengthyKeyedStrangers checks that a stranger without a current key of the cluster learns
// and changes nothing on any port. The same messages are answered if the sender has the
// key, which shows that the key makes the difference.
func TestLengthyKeyedStrangers(t *testing.T) {
	testenv.Takes(t, 35*time.Second)
	testenv.ReadsClock(t, 200*time.Millisecond, "a stranger's datagrams are not answered: nothing may come")
	t.Parallel()
	_, rest, _ := strings.Cut(peer.NewKeyFile(), "\nseed: ")
	seed := "seed: " + rest[:16]
	one, two := peer.NewKeyLine(), peer.NewKeyLine()
	c := newKeyedPair(t, seed+"\n"+one)
	a := c.hosts[0]

	holder := newOutsider(t, "stranger", seed+"\n"+one)
	ping := gt.Sealed(holder.set.Gossip[0], cluster.DefaultCluster, gt.PingOf("stranger", firstHost))
	if b := holder.packets(c.gossip[0], testenv.Patience, ping, ping); len(b) == 0 {
		t.Error("a holder's ping is not answered: this test proves nothing of datagrams")
	}
	answer := holder.says(c.gossip[0], gt.SealedStream(holder.set.Gossip[0], cluster.DefaultCluster, gt.Exchange(0)))
	m, err := gt.Opened(holder.set.Gossip[0], cluster.DefaultCluster, answer)
	if err != nil || !bytes.Contains(m, []byte(secondHost)) {
		t.Errorf("a holder's exchange: %q, %v: this test proves nothing of streams", m, err)
	}

	c.unchanged("another key", func() {
		newOutsider(t, secondHost, seed+"\n"+two).attacks(c, "another key")
	})
	c.unchanged("a process with another key", func() { c.alone(seed + "\n" + two) })

	old, err := holder.shake(c.peer[0])
	if err != nil {
		t.Fatal(err)
	}
	got := holder.greets(old, "stranger", "call")
	if len(got) != 4 || got[0] != wire.OK || got[1] != wire.OK && got[1] != wire.Moved {
		t.Fatalf("a holder is answered %v: this test proves nothing of the port for hosts: %q", got, tail(string(holder.heard), 300))
	}
	// The sender with the key may have changed it.
	c.hosts[0].must("set", storedKey, storedText)
	for i, text := range []string{one + two, two + one, two} {
		c.write(seed + "\n" + text)
		for _, p := range c.hosts {
			p.signal(syscall.SIGHUP)
			p.told(`"msg":"cluster keys and certificates are read"`, i+1)
		}
	}
	_ = old.SetDeadline(testenv.Deadline())
	if _, err := io.Copy(io.Discard, old); err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a connection from before the rotation stays, with the key that was removed")
	}
	whole(t, c.hosts...)
	c.unchanged("a removed key", func() {
		former := newOutsider(t, secondHost, seed+"\n"+one)
		if _, err := former.shake(c.peer[0]); err != nil {
			t.Errorf("the handshake: %v", err)
		}
		former.attacks(c, "a removed key")
	})
	c.unchanged("a process with a removed key", func() { c.alone(seed + "\n" + one) })
	if log := a.log.String(); strings.Contains(log, storedText) || strings.Contains(log, strings.TrimSpace(two[5:])) {
		t.Error("the log shows a value or a key")
	}
}

// alone runs a sidecar with a key file of its own that joins the hosts. It stays alone,
// and reads none of their entries.
func (c *keyedPair) alone(text string) {
	c.t.Helper()
	ports, err := freePorts(2)
	if err != nil {
		c.t.Fatal(err)
	}
	path := filepath.Join(tempDir(c.t), "other.key")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	p := runSidecar(c.t, "--node", "stranger", "--l2-size", "16MiB", "--cluster-key-file", path, "--bind", loopback(ports[0]),
		"--peer-bind", loopback(ports[1]), "--join", strings.Join(append(slices.Clone(c.gossip), loopback(ports[0])), ","))
	testenv.Succeeds(c.t, "the stranger to be alone", func() error {
		if o := p.at("set", "k", "v"); o.status != exitDone {
			return fmt.Errorf("%v", o)
		}
		return nil
	})
	p.healthy(exitMiss, "alone: no host answers at the join addresses (")
	if list := p.members(); len(list) != 1 || list[0].Node != "stranger" {
		c.t.Errorf("it sees %+v", list)
	}
	if o := p.at("get", storedKey); o.status != exitMiss || o.out != "" {
		c.t.Errorf("it reads %v", o)
	}
	for _, secret := range []string{firstHost, secondHost, storedKey, storedText} {
		if strings.Contains(p.log.String(), secret) {
			c.t.Errorf("its log names %s", secret)
		}
	}
	p.must("flush", "--yes")
	p.terminate()
}

// TestLengthyKeyedStreamSentBack checks the answer to a stranger's stream, which is encrypted
// under the cluster's key. Sent back unchanged, or marked as another version of gossip's
// encryption, it has no effect. For version 0 memberlist took the text's last byte for a
// length, and ended.
func TestLengthyKeyedStreamSentBack(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	testenv.ReadsClock(t, 50*time.Millisecond, "what is sent back is not answered: nothing may come")
	text := peer.NewKeyFile()
	c := newKeyedPair(t, text)
	o := newOutsider(t, "stranger", peer.NewKeyFile())
	c.unchanged("an answer, sent back", func() {
		for _, m := range [][]byte{gt.SealedStream(o.set.Gossip[0], cluster.DefaultCluster, gt.Exchange(0)), labelled(gt.Exchange(0))} {
			answer := o.says(c.gossip[0], m)
			if len(answer) < 45 || answer[0] != gt.EncryptType {
				t.Fatalf("the answer is %q: this test proves nothing", answer)
			}
			for version := range byte(4) {
				answer[5] = version
				o.says(c.gossip[0], labelled(answer))
				o.packets(c.gossip[0], 50*time.Millisecond, labelled(answer[5:]))
			}
		}
		o.learnt("an answer, sent back")
	})
}
