// Package peer connects sidecars: it has the connections to other nodes, the server for
// connections from other nodes, and the greeting that begins each connection.
//
// Inputs are addresses and requests; outputs are answers. The package does not know
// what the requests mean: that is up to the packages that send and serve them. Frames
// and connections are those of the app socket (wire, rpc, server), over TCP.
//
// A node keeps two connections to each other node. "poll" carries what leases,
// ownership and invalidations depend on; it never carries a value, so a large value
// cannot delay them. "call" carries the rest. There is one connection for each
// direction and purpose: a new connection from a node replaces the older one.
//
// With Credentials all connections are TLS 1.3, and both sides show a certificate that
// has the node's name. A message that names its sender must name the process that was
// greeted (see Read). When credentials change, connections are replaced and no call
// fails (see Pool.Renew).
//
// Strangers, which are connections before their greeting, are limited in number, rate,
// time and bytes (see listener).
//
// The greeting refuses a node that has no common version, belongs to another cluster,
// has other cluster-wide settings, or whose clock is off. The error message names both
// values.
//
// The credentials come from files: the cluster's key file and, optionally, certificate files.
// KeyWatch reads the files again, and makes new Credentials when they change.
//
// Goroutines: those of rpc and server, one per connection; one that accepts; one per handshake;
// and those of a renewal. They end with Server.Serve and Pool.Close. KeyWatch.Run
// runs in the caller's.
//
// # The key file
//
//	# comment
//	seed: 16 hexadecimal digits
//	key: 64 hexadecimal digits
//	key: 64 hexadecimal digits   # accepted, and not used
//
// The first key is in use; all keys are accepted; there are at most maxKeys. The seed
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
package peer
