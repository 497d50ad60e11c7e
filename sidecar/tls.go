package sidecar

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/peer"
)

// TLSFiles are the paths of certificate files in PEM. Give all three or none. They
// require a cluster key file.
type TLSFiles struct {
	// Cert is this host's certificate chain; the first names this node in a DNS name.
	// Form: path. Default: none. Bounds: absolute, up to 64KiB.
	Cert string `yaml:"cert"`
	// Key is the private key of Cert. Form: path. Default: none. Bounds: absolute, up
	// to 64KiB.
	Key string `yaml:"key"`
	// CA are the authorities whose certificates are accepted. Form: path. Default: none.
	// Bounds: absolute, up to 64KiB.
	CA string `yaml:"ca"`
}

func (c *Config) paths() peer.KeyPaths {
	return peer.KeyPaths{ClusterKey: c.ClusterKeyFile, Cert: c.TLS.Cert, Key: c.TLS.Key, CA: c.TLS.CA}
}

// credentials reads the files. It returns nil if there are none.
func (c *Config) credentials() (*peer.Credentials, error) {
	if c.ClusterKeyFile == "" {
		return nil, nil
	}
	return c.paths().Read().Credentials(c.Node, c.now())
}

// now reads the wall clock.
func (c *Config) now() time.Time { return c.clock.Read().Time() }

// Reload reads the cluster key file and the certificate files again. The watch of the
// files does the same within 5 s of a change. An error says why the new contents are not
// taken; then nothing has changed. Without such files Reload does nothing.
func (s *Sidecar) Reload() error { return s.keys.Reload() }
