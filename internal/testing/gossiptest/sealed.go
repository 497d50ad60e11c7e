package gossiptest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"slices"
)

// EncryptType is the type of an encrypted message on a stream.
const EncryptType = 10

// sealing is the number of bytes that encryption adds: version, nonce, tag.
const sealing = 1 + 12 + 16

// seal encrypts like memberlist's version 1.
func seal(key, message, data []byte) []byte {
	nonce := make([]byte, 12)
	_, _ = rand.Read(nonce) // never fails
	return gcm(key).Seal(slices.Concat([]byte{1}, nonce), nonce, message, data)
}

// gcm expects a key of a valid length; it panics otherwise.
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

// Sealed encrypts a packet with a cluster key.
func Sealed(key []byte, cluster string, message []byte) []byte {
	return Labelled(cluster, seal(key, message, []byte(cluster)))
}

// SealedStream encrypts a message on a stream with a cluster key.
func SealedStream(key []byte, cluster string, message []byte) []byte {
	head := binary.BigEndian.AppendUint32([]byte{EncryptType}, uint32(len(message)+sealing))
	return Labelled(cluster, slices.Concat(head, seal(key, message, slices.Concat(head, []byte(cluster)))))
}

// Opened decrypts an answer on a stream with its cluster key.
func Opened(key []byte, cluster string, answer []byte) ([]byte, error) {
	if len(answer) < 5+sealing || answer[0] != EncryptType {
		return nil, errors.New("it is not encrypted")
	}
	head, b := answer[:5], answer[5:]
	return gcm(key).Open(nil, b[1:13], b[13:], slices.Concat(head, []byte(cluster)))
}
