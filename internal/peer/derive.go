package peer

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// Labels of the secrets that are derived from a key. A label with another number gives
// another secret.
const (
	labelGossip      = "cachesidecar gossip 1"
	labelAuthority   = "cachesidecar authority 1"
	labelFingerprint = "cachesidecar fingerprint 1"
	labelSeed        = "cachesidecar seed 1"
	labelNames       = "cachesidecar names 1"
)

func (k *Key) derive(label string, n int) []byte {
	b, err := hkdf.Key(sha256.New, k[:], nil, label, n)
	if err != nil { // cannot happen: n is far below HKDF's limit
		panic(err)
	}
	return b
}

// gossip returns the secret that encrypts gossip's packets, 32 bytes.
func (k *Key) gossip() []byte { return k.derive(labelGossip, 32) }

// Fingerprint identifies a key and reveals nothing about it.
func (k *Key) Fingerprint() string { return hex.EncodeToString(k.derive(labelFingerprint, 4)) }

// SeedDigest identifies a seed, so that hosts can compare seeds. A seed is 64 random
// bits: to find it from the digest, all of them must be tried.
func SeedDigest(seed uint64) string {
	h := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(labelSeed), seed))
	return hex.EncodeToString(h[:8])
}
