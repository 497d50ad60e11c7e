package gossip

import "errors"

// Bounds of what strangers send. Members send packets of 1,400 bytes at most.
const (
	maxPacket             = 2 << 10
	maxString             = 1 << 10        // bytes of a string in a message; a meta has 512
	maxFields             = 16             // of a message; memberlist's have 7
	maxNodes              = 2 * maxMembers // in an exchange: living and lately dead nodes
	maxStream             = 1 << 20        // bytes of an exchange; 100 nodes take 20 KiB
	maxStreams            = 64             // from others, at once; one lasts streamTimeout at most
	maxStreamsPerIP       = 16             // of them, from one IP address
	minEncrypted          = 1 + 12 + 16    // bytes of an encrypted message: version, nonce, tag
	encryptionVersion     = 1              // of the encryption, the only one that members use
	maxEncryptionOverhead = 64             // bytes that encryption adds, at most
	// Pings on behalf of others, per second. Of 2,000 nodes with half of them
	// dead, about 6 come.
	indirectRate = 100
)

// Why a message is not passed on.
var (
	errForeign    = errors.New("gossip: another cluster's label")
	errCompressed = errors.New("gossip: compressed, which no member sends")
	errUnreadable = errors.New("gossip: no message of a member")
	errLong       = errors.New("gossip: longer than a member's")
)
