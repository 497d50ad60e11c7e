// Package creds turns files into credentials: what a host shows to other hosts, and
// what it accepts from them. The files are the cluster's key file and, optionally,
// certificate files.
//
// Inputs are the paths and this host's name. The output is a Set, which never changes.
// Watch reads the files again and replaces the Set when they change. The package keeps
// no connections and starts no goroutine; Watch.Run runs in the caller's.
//
// # The key file
//
//	# comment
//	seed: 16 hexadecimal digits
//	key: 64 hexadecimal digits
//	key: 64 hexadecimal digits   # accepted, and not used
//
// The first key is in use; all keys are accepted; there are at most MaxKeys. The seed
// is that of the hash that places the cache's keys. The seed has its own line and is
// not derived from a key, because it must stay the same when keys change.
//
// # What is derived from a key
//
// Each of a key's 32 bytes is random. HKDF with SHA-256 and no salt is therefore enough
// to derive independent secrets, one for each label:
//
//	"cachesidecar gossip 1"       32 bytes: AES-256-GCM of gossip's packets
//	"cachesidecar authority 1"    32 bytes: the private Ed25519 key of an authority
//	"cachesidecar names 1"        32 bytes: AES-256-GCM of node names in certificates
//	"cachesidecar fingerprint 1"  4 bytes, shown in logs and metrics
//
// A TLS server shows its certificate before it knows the client. The node's name is
// therefore encrypted in the certificate, and strangers cannot read it.
//
// The authority's own certificate is the same on every host that has the key. It exists
// in memory only, and so do the certificates that it signs. At each start, and at each
// change of keys, a host makes a new Ed25519 key and a certificate for its name, signed
// by the authority of the first key. The roots that a host accepts are the authorities
// of all keys. Certificates of both kinds are valid from 1970 to 9999: clocks differ,
// and the greeting compares clocks with a better error message. A certificate ends when
// its key is removed from the files.
//
// A host that has a key can make a certificate for any name: a key file stands for the
// whole cluster. Certificate files bind a host to its name.
//
// # Certificate files
//
// Certificate files replace the derived certificates in TLS. Gossip still needs the key
// file, because memberlist has no certificates.
package creds
