package peer

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"time"
)

// Validity of certificates: the longest that X.509 can express.
var (
	validFrom  = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC) // clocks may start there
	validUntil = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// authority signs certificates.
type authority struct {
	cert  *x509.Certificate
	key   ed25519.PrivateKey
	names cipher.AEAD // encrypts the names in its certificates
}

// authority returns the authority of a key. It is the same, byte for byte, on every
// host that has the key.
func (k *Key) authority() (*authority, error) {
	key := ed25519.NewKeyFromSeed(k.derive(labelAuthority, ed25519.SeedSize))
	id := sha256.Sum256(key.Public().(ed25519.PublicKey))
	t := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(append([]byte{1}, id[:8]...)),
		Subject:      pkix.Name{CommonName: "cachesidecar cluster " + hex.EncodeToString(id[:8])},
		SubjectKeyId: id[:20],
		NotBefore:    validFrom, NotAfter: validUntil,
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	cert, err := sign(t, t, key.Public().(ed25519.PublicKey), key)
	return &authority{cert, key, k.names()}, err
}

// names returns the cipher that hides node names in certificates. A TLS server shows
// its certificate to every client, before it knows the client.
func (k *Key) names() cipher.AEAD {
	block, err := aes.NewCipher(k.derive(labelNames, 32))
	if err != nil { // cannot happen: the length is right
		panic(err)
	}
	a, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return a
}

// named returns the nodes that a certificate of the authority names.
func (a *authority) named(leaf *x509.Certificate) (nodes []string) {
	for _, hidden := range leaf.DNSNames {
		b, err := hex.DecodeString(hidden)
		if err != nil {
			continue
		}
		if node, err := a.names.Open(nil, nil, b, nil); err == nil {
			nodes = append(nodes, string(node))
		}
	}
	return nodes
}

// issue makes a certificate for a host, with a new private key.
func (a *authority) issue(node string) (tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return tls.Certificate{}, err
	}
	cert, err := sign(&x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)),
		Subject:      pkix.Name{CommonName: "cachesidecar"},
		DNSNames:     []string{hex.EncodeToString(a.names.Seal(nil, nil, []byte(node), nil))},
		NotBefore:    validFrom, NotAfter: validUntil,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},

		BasicConstraintsValid: true,
	}, a.cert, public, a.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("a certificate for node %q: %w", node, err)
	}
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: private, Leaf: cert}, nil
}

func sign(t, by *x509.Certificate, public ed25519.PublicKey, key ed25519.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, by, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
