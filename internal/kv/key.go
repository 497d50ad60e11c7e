package kv

import "github.com/zeebo/xxh3"

// Limits of names and keys, in bytes.
const (
	MaxKeyLen       = 1024
	MaxNamespaceLen = 64
)

// PartitionBits is the number of leading hash bits that name a partition.
const PartitionBits = 14

// Partitions is the fixed number of partitions of a cluster.
const Partitions = 1 << PartitionBits

// Hash is the hash of a key: the 64-bit xxh3 of namespace and key under a seed that the
// whole cluster shares. Its top PartitionBits bits name the partition and so the owner.
// Stores pick shards and buckets by lower bits, because on one node the top bits are far
// from uniform. If a value depends on it, keys of one hash are told apart by their bytes.
type Hash uint64

// Partition returns the partition of the hash.
func (h Hash) Partition() uint16 { return uint16(h >> (64 - PartitionBits)) }

// NamespaceSeed returns the seed under which the keys of one namespace are hashed. With
// it, hashing a key needs one pass over the key alone.
func NamespaceSeed(clusterSeed uint64, namespace string) uint64 {
	return xxh3.HashStringSeed(namespace, clusterSeed)
}

// HashKey hashes a key under the seed of its namespace.
func HashKey(namespaceSeed uint64, key []byte) Hash {
	return Hash(xxh3.HashSeed(key, namespaceSeed))
}

// NamespaceID is the slot of a namespace on this host. Slots are local; between hosts a
// namespace is sent by name.
type NamespaceID uint8

// MaxNamespaces is the number of namespace slots of a host.
const MaxNamespaces = 256

// Key names an entry inside a host. Bytes belongs to the caller: code that keeps a Key
// longer than the call that received it must copy Bytes.
type Key struct {
	Hash      Hash
	Namespace NamespaceID
	Bytes     []byte
}

// NodeID is a member's name, unique in the cluster.
type NodeID string

// ValidKey reports whether the length of a key is allowed.
func ValidKey(key []byte) bool { return len(key) >= 1 && len(key) <= MaxKeyLen }

// ValidNamespace reports whether a name is 1 to MaxNamespaceLen bytes of [a-z0-9_.-].
func ValidNamespace(name string) bool {
	if len(name) < 1 || len(name) > MaxNamespaceLen {
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '_', c == '.', c == '-':
		default:
			return false
		}
	}
	return true
}
