package sidecar

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/creds"
)

// TLSFiles are certificate files in PEM. All three are given, or none, and the
// cluster key file with them.
type TLSFiles struct {
	Cert string `yaml:"cert"` // the chain; its first names this node in a DNS name
	Key  string `yaml:"key"`  // its private key
	CA   string `yaml:"ca"`   // whose certificates are accepted
}

func (c *Config) paths() creds.Paths {
	return creds.Paths{ClusterKey: c.ClusterKeyFile, Cert: c.TLS.Cert, Key: c.TLS.Key, CA: c.TLS.CA}
}

// credentials reads the files; nil where there are none.
func (c *Config) credentials() (*creds.Set, error) {
	if c.ClusterKeyFile == "" {
		return nil, nil
	}
	return c.paths().Read().Set(c.Node, c.now())
}

// now reads the wall clock.
func (c *Config) now() time.Time { return c.Clock.Read().Time() }

// Reload reads the cluster key file and the certificate files again, as the watch
// of the files does within 5 s of a change. An error says why what they hold is
// not taken; then nothing has changed. Without such files there is nothing to do.
func (s *Sidecar) Reload() error { return s.keys.Reload() }
