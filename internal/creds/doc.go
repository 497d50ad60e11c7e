// Package creds is what a host shows other hosts and accepts of them, as files
// say it: the cluster's key file, and certificate files where they are given.
//
// Inputs are the paths and this host's name; the output is a Set, which never
// changes. It reads files, and does nothing else: it watches nothing, logs nothing
// and holds no connection.
//
// # The key file
//
//	# comment
//	seed: 16 hexadecimal digits
//	key: 64 hexadecimal digits
//	key: 64 hexadecimal digits   # accepted, and not used
//
// The first key is in use, all are accepted, and there are MaxKeys at most. The
// seed is that of the hash which places the cache's keys. It stands beside the
// keys, and is not derived of one, because it must stay when they change.
//
// # What comes of a key
//
// Each of a key's 32 bytes is random, so HKDF with SHA-256 and no salt is enough
// to make independent secrets of it, one for each label:
//
//	"cachesidecar gossip 1"       32 bytes: AES-256-GCM of gossip's packets
//	"cachesidecar authority 1"    32 bytes: the private Ed25519 key of an authority
//	"cachesidecar names 1"        32 bytes: AES-256-GCM of the nodes' names in certificates
//	"cachesidecar fingerprint 1"  4 bytes, shown in logs and metrics
//
// A TLS server shows its certificate before it knows whom it talks to. So the name of
// the node stands there encrypted, and a stranger learns none.
//
// The authority's own certificate is the same on every host that has the key. It
// lives in memory only, as does what it signs: at each start, and at each change
// of keys, a host makes a new Ed25519 key and a certificate for its name, signed by
// the authority of the first key. The roots that it accepts are the authorities of
// all keys. Certificates of both kinds are valid from 1970 to 9999, since clocks
// differ and the greeting compares them with a better message: what ends a
// certificate is that its key is removed from the files.
//
// Who has a key can make a certificate for any name: a key file stands for the
// whole cluster. Certificate files bind a host to its name.
//
// # Certificate files
//
// They take the place of the derived certificates in TLS. Gossip needs the key
// file still, since memberlist has no certificates.
package creds
