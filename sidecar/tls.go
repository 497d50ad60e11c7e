package sidecar

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/peer"
)

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
