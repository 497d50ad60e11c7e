package attacks

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	gt "github.com/cachesidecar/cachesidecar/internal/testing/gossiptest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

const ofKey = "the cluster key"

// keyedAttacks are attacks by a stranger without the key on hosts that have a cluster
// key. The stranger must learn and change nothing.
var keyedAttacks = []attack{
	{
		name:  "with a key: greetings",
		tries: "a stranger's greetings without TLS, and under certificates of its own",
		bound: ofKey,
		hosts: 2, keyed: true, run: greetWithoutKey,
	},
	{
		name:  "with a key: broken handshakes",
		tries: "handshakes that are cut short, sent again, or followed by nothing, 64 at a time",
		bound: ofKey + "; a bounded rate and number of handshakes",
		hosts: 2, keyed: true, run: breakHandshakes,
	},
	{
		name:  "with a key: gossip",
		tries: "2,000 packets a second without the key, 100 connections that send 20 MiB as if encrypted, and answers sent back",
		bound: "one failed decryption for each key; bounds on packets and streams",
		hosts: 2, keyed: true, shown: noStrangers, run: gossipWithoutKey,
	},
}

// pretender returns a TLS configuration with a self-signed certificate.
func pretender(name string) (*tls.Config, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		IsCA: true, BasicConstraintsValid: true,
		NotBefore: testenv.Date().Add(-time.Hour), NotAfter: testenv.Date().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}}, MinVersion: tls.VersionTLS13,
		InsecureSkipVerify: true, ServerName: name,
	}, nil
}

// greetWithoutKey greets in every way that is open to a stranger. No greeting or request
// may be answered OK.
func greetWithoutKey(ctx context.Context, j *job) error {
	names := []string{"stranger", j.Target.Hosts[0].Node, j.Target.Hosts[1].Node}
	j.crowd(ctx, 4, func(i int) error {
		name := names[mathrand.IntN(len(names))]
		j.count.Add(1)
		if i%2 == 0 {
			c, err := greet(ctx, j, "poll", func(h *wire.PeerHello) { h.From.Node = kv.NodeID(name) })
			if err == nil {
				j.learn("a greeting without TLS is answered")
				_ = c.Close()
			}
			return err
		}
		config, err := pretender(name)
		if err != nil {
			return err
		}
		c, err := dial(ctx, "tcp", j.victim().Peer, 2*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		secured := tls.Client(c.Conn, config)
		if err := secured.Handshake(); err != nil {
			return err
		}
		if _, err := secured.Write(frame(1, wire.OpMembers, 0)); err != nil {
			return err
		}
		b := make([]byte, 4096)
		if n, err := io.ReadAtLeast(secured, b, 6); err == nil {
			j.learn("under a certificate of its own: %q", b[:n])
		}
		return nil
	})
	return nil
}

// recorder keeps the bytes that a handshake sends.
type recorder struct {
	net.Conn
	sent []byte
}

func (r *recorder) Write(b []byte) (int, error) {
	r.sent = append(r.sent, b...)
	return r.Conn.Write(b)
}

// breakHandshakes sends parts of a handshake that it has recorded before.
func breakHandshakes(ctx context.Context, j *job) error {
	config, err := pretender("stranger")
	if err != nil {
		return err
	}
	c, err := dial(ctx, "tcp", j.victim().Peer, 2*time.Second)
	if err != nil {
		return err
	}
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	r := &recorder{Conn: c.Conn}
	_ = tls.Client(r, config).Handshake()
	_ = c.Close()
	j.crowd(ctx, 64, func(i int) error {
		c, err := dial(ctx, "tcp", j.victim().Peer, 2*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		j.count.Add(1)
		_ = c.SetDeadline(time.Now().Add(time.Second))
		part := r.sent
		if i%4 != 0 {
			part = part[:mathrand.IntN(len(part)+1)]
		}
		if _, err := c.Write(part); err != nil {
			return err
		}
		if i%2 == 0 {
			discard(c)
		}
		return nil
	})
	return nil
}

// gossipWithoutKey sends memberlist's messages unencrypted and under another key, and noise in the
// form of encrypted ones.
func gossipWithoutKey(ctx context.Context, j *job) error {
	random := mathrand.New(mathrand.NewPCG(uint64(j.Round), 3))
	key, other := noise(random, 32), j.Target.Hosts[1].Node
	kinds := [][]byte{
		bomb(), labelled(gt.Exchange(1 << 20)), labelled([]byte{gt.DeadType}), labelled(noise(random, 1200)),
		labelled([]byte{1}, noise(random, 600)),
	}
	for _, lie := range [][]byte{alive("stranger", 1<<31, nobody), alive(other, 1<<31, nobody), dead(other, 1<<32-1)} {
		kinds = append(kinds, lie, gt.Sealed(key, cluster.DefaultCluster, lie[len(labelled()):]))
	}
	const long = 20 << 20 // as memberlist reads them before it decrypts
	sealed := labelled(binary.BigEndian.AppendUint32([]byte{gt.EncryptType}, long), []byte{1}, make([]byte, long))
	// The goroutines end with ctx.
	go func() { _ = streams(100, func(int) []byte { return sealed })(ctx, j) }()
	go j.crowd(ctx, 1, func(int) error { return eavesdrop(ctx, j, key) })
	return packets(2000, func(i int) []byte { return kinds[i%len(kinds)] })(ctx, j)
}

// eavesdrop asks what members answer, with a key that is not the cluster's, and looks at what comes
// back. It sends an answer back too, marked as another version of encryption: for version 0
// memberlist took the text's last byte for a length, and ended.
func eavesdrop(ctx context.Context, j *job, key []byte) error {
	u, err := net.Dial("udp", j.victim().Gossip)
	if err != nil {
		return err
	}
	defer u.Close()
	ping := gt.PingOf("stranger", j.victim().Node)
	_, err = u.Write(labelled(ping))
	_, err2 := u.Write(gt.Sealed(key, cluster.DefaultCluster, ping))
	_ = u.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, _ := u.Read(make([]byte, 1<<10)); n > 0 {
		j.learn("a datagram without the key is answered")
	}
	for _, message := range [][]byte{labelled(gt.Exchange(0)), gt.SealedStream(key, cluster.DefaultCluster, gt.Exchange(0))} {
		answer := j.tellStream(ctx, message)
		if len(answer) < 6 {
			continue
		}
		if _, err := gt.Opened(key, cluster.DefaultCluster, answer); err == nil || answer[0] != gt.EncryptType {
			j.learn("a stranger can read %q", answer)
		}
		for version := range byte(4) {
			answer[5] = version
			j.tellStream(ctx, labelled(answer))
			_, _ = u.Write(labelled(answer[5:]))
		}
	}
	return errors.Join(err, err2)
}

// tellStream sends bytes over a stream, and returns what is answered within a second.
func (j *job) tellStream(ctx context.Context, b []byte) []byte {
	c, err := dial(ctx, "tcp", j.victim().Gossip, time.Second)
	if err != nil {
		return nil
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	_, _ = c.Write(b)
	_ = c.Conn.(*net.TCPConn).CloseWrite()
	answer, _ := io.ReadAll(c)
	return answer
}

// noStrangers checks that gossip without the key is dropped: of no other process it hears.
func noStrangers(h *house, r report) error {
	_, page, err := h.hosts[0].get("/metrics")
	for _, name := range []string{"cachesidecar_gossip_unknown 0", "cachesidecar_gossip_unknown_forgotten_total 0"} {
		if err == nil && !strings.Contains(page, "\n"+name+"\n") {
			err = fmt.Errorf("not %q", name)
		}
	}
	_, rest, _ := strings.Cut(page, `cachesidecar_gossip_dropped_total{reason="garbage"} `)
	text, _, _ := strings.Cut(rest, "\n")
	if n, _ := strconv.ParseFloat(text, 64); 10*int64(n) < r.Count {
		err = errors.Join(err, fmt.Errorf("%v of %d packets are counted", n, r.Count))
	}
	out, err2 := members(h)
	if strings.Contains(out, "stranger") {
		err2 = fmt.Errorf("members: %s", out)
	}
	return errors.Join(err, err2, twoOwners(h, r))
}
