package peer

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/cachesidecar/cachesidecar/internal/settings"
)

// Limits of a key file.
const (
	maxKeys = 8
	maxFile = 64 << 10 // bytes, for any file
)

// Key is one key of the cluster.
type Key [32]byte

// KeyFile is the content of a key file.
type KeyFile struct {
	Seed uint64 // of the hash that places the cache's keys
	Keys []Key  // the first key is in use, all are accepted
}

// remedy tells the operator how to make a key file.
const remedy = "\"cachesidecar key generate\" makes a file"

// ParseKeyFile parses the text of a key file. Errors never show any of the text.
func ParseKeyFile(text []byte) (*KeyFile, error) {
	f := &KeyFile{}
	seedAt, at := 0, map[Key]int{} // line numbers, from 1; zero: not seen yet
	for i, line := range bytes.Split(text, []byte("\n")) {
		line, _, _ = bytes.Cut(line, []byte("#"))
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		name, value, _ := strings.Cut(string(line), ":")
		value = strings.TrimSpace(value)
		n := i + 1
		switch strings.TrimSpace(name) {
		case "seed":
			var seed [8]byte
			if err := digits(seed[:], value); err != nil {
				return nil, fmt.Errorf("line %d: seed: %w; %s", n, err, remedy)
			}
			if seedAt != 0 {
				return nil, fmt.Errorf("line %d: a seed is there already, at line %d: "+
					"leave the one that all hosts have", n, seedAt)
			}
			seedAt, f.Seed = n, binary.BigEndian.Uint64(seed[:])
		case "key":
			var k Key
			if err := digits(k[:], value); err != nil {
				return nil, fmt.Errorf("line %d: key: %w; \"cachesidecar key generate --key-only\" makes one", n, err)
			}
			if at[k] != 0 {
				return nil, fmt.Errorf("line %d: this key is there already, at line %d: leave out one of them",
					n, at[k])
			}
			if len(f.Keys) == maxKeys {
				return nil, fmt.Errorf("line %d: more than %d keys: remove those that no host uses", n, maxKeys)
			}
			at[k] = n
			f.Keys = append(f.Keys, k)
		default:
			return nil, fmt.Errorf("line %d: neither a seed, nor a key, nor a comment; %s", n, remedy)
		}
	}
	switch {
	case seedAt == 0:
		return nil, fmt.Errorf("there is no line with a seed: take that of the other hosts' files; %s", remedy)
	case len(f.Keys) == 0:
		return nil, fmt.Errorf("there is no line with a key; %s", remedy)
	}
	return f, nil
}

// digits decodes text into b. It requires exactly as many hexadecimal digits as b
// needs.
func digits(b []byte, text string) error {
	if len(text) != hex.EncodedLen(len(b)) {
		return fmt.Errorf("%d characters: give %d hexadecimal digits", len(text), hex.EncodedLen(len(b)))
	}
	if _, err := hex.Decode(b, []byte(text)); err != nil {
		// hex's own error would show a character.
		return fmt.Errorf("there is more than hexadecimal digits in it")
	}
	if bytes.Count(b, []byte{0}) == len(b) {
		return errors.New("all zeros are no secret")
	}
	return nil
}

// NewKeyFile returns the text of a new key file, with a random seed and one key.
func NewKeyFile() string {
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails
	return fmt.Sprintf(newKeyFile, hex.EncodeToString(seed[:]), NewKeyLine())
}

// NewKeyLine returns a line with a new key, to add to an existing file.
func NewKeyLine() string {
	var k Key
	_, _ = rand.Read(k[:]) // never fails
	return "key: " + hex.EncodeToString(k[:]) + "\n"
}

const newKeyFile = `# The key of a cachesidecar cluster (cluster_key_file). Every host has the same
# file; a process that has it is a member of the cluster. Mode 0600, or 0440 for
# a group; the owner is root or the sidecar's user.
#
# A new key, without an interruption; each step on all hosts before the next:
#   1. add a line made by "cachesidecar key generate --key-only" below the others
#   2. move it above the others: the first one is in use, all are accepted
#   3. remove the old line
# A running sidecar takes a change within 5 seconds, or at once on SIGHUP.

# Places the cache's keys. It is never changed: a host with another one is refused.
seed: %s

%s`

// readKeys returns the content of a short file. Other users may neither read nor write a
// secret file, and may not write a file that is not secret. A group may read a secret,
// because orchestrators hand out secrets that way.
func readKeys(path string, secret bool) ([]byte, error) {
	if !filepath.IsAbs(path) {
		return nil, errors.New("give the whole path, from / on, of a file")
	}
	if secret {
		return settings.ReadSecret(path, maxFile)
	}
	return settings.ReadTrusted(path, maxFile)
}

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
