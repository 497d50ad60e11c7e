package gossiptest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"slices"
)

// EncryptType is the type of a stream's message that is encrypted.
const EncryptType = 10

// sealing is how much longer encryption makes a message: version, nonce, tag.
const sealing = 1 + 12 + 16

// seal encrypts as memberlist does, in its version 1.
func seal(key, message, data []byte) []byte {
	nonce := make([]byte, 12)
	_, _ = rand.Read(nonce) // never fails
	return gcm(key).Seal(slices.Concat([]byte{1}, nonce), nonce, message, data)
}

// gcm is of a key that has the right length: what is wrong with it is the test's.
func gcm(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return a
}

// Sealed is a packet of a holder of a key.
func Sealed(key []byte, cluster string, message []byte) []byte {
	return Labelled(cluster, seal(key, message, []byte(cluster)))
}

// SealedStream is what a holder of a key says on a stream.
func SealedStream(key []byte, cluster string, message []byte) []byte {
	head := binary.BigEndian.AppendUint32([]byte{EncryptType}, uint32(len(message)+sealing))
	return Labelled(cluster, slices.Concat(head, seal(key, message, slices.Concat(head, []byte(cluster)))))
}

// Opened is the message of an answer on a stream, to a holder of its key.
func Opened(key []byte, cluster string, answer []byte) ([]byte, error) {
	if len(answer) < 5+sealing || answer[0] != EncryptType {
		return nil, errors.New("it is not encrypted")
	}
	head, b := answer[:5], answer[5:]
	return gcm(key).Open(nil, b[1:13], b[13:], slices.Concat(head, []byte(cluster)))
}
