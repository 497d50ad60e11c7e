package attacks

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
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
		tries: "2,000 packets a second without the key, and 100 connections that send 20 MiB as if encrypted",
		bound: "one failed decryption for each key; bounds on packets and streams",
		hosts: 2, keyed: true, shown: twoMembers, run: gossipWithoutKey,
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

// gossipWithoutKey sends memberlist's unencrypted packets, and noise in the form of
// encrypted ones.
func gossipWithoutKey(ctx context.Context, j *job) error {
	random := mathrand.New(mathrand.NewPCG(uint64(j.Round), 3))
	kinds := [][]byte{
		bomb(), alive("stranger", 1<<31, nobody), pushPull(1 << 20), labelled([]byte{5}),
		labelled(noise(random, 1200)), labelled([]byte{1}, noise(random, 600)),
	}
	const long = 20 << 20 // as memberlist reads them before it decrypts
	sealed := labelled([]byte{10}, binary.BigEndian.AppendUint32(nil, long), []byte{1}, make([]byte, long))
	// The goroutine ends with ctx.
	go func() { _ = streams(100, func(int) []byte { return sealed })(ctx, j) }()
	return packets(2000, func(i int) []byte { return kinds[i%len(kinds)] })(ctx, j)
}

// twoMembers checks that the list of members contains only the two hosts.
func twoMembers(h *house, _ report) error {
	out, err := members(h)
	if err == nil && (strings.Contains(out, "stranger") || strings.Count(out, " in ") != 2) {
		err = fmt.Errorf("members: %s", out)
	}
	return err
}
