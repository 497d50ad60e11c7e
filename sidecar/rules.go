package sidecar

import (
	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/verify"
)

// rules returns the access rules of the socket.
func (c *Config) rules() (*access.Rules, error) {
	r := access.Config{
		AdminGroup: c.AdminGroup, Reserved: verify.Namespace,
		Namespaces: map[string]access.Grants{}, Tokens: map[string]string{},
	}
	for name, g := range c.Access {
		r.Namespaces[name] = access.Grants(g)
	}
	for name, t := range c.Tokens {
		r.Tokens[name] = t.File
	}
	return access.New(r)
}
