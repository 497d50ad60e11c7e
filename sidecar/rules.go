package sidecar

import (
	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/verify"
)

// Grants lists the callers that may read, write and administer a namespace through the
// socket. Admin includes the rights of Write, and Write the rights of Read. Each entry
// is one of
//
//	user:NAME, user:1000, 1000   a user
//	group:NAME, group:100        the members of a group
//	token:NAME                   a connection that has shown this token of Config.Tokens
//	anyone                       every user that may open the socket
type Grants struct {
	Read  []string `yaml:"read"`
	Write []string `yaml:"write"`
	Admin []string `yaml:"admin"`
}

// Token is a secret that a connection may show in HELLO. It adds rights to the rights of
// the connection's user. It is meant for containers that share a user.
type Token struct {
	// File is the path of the file with the secret: one line of 16 to 256 bytes. Only
	// this process's user, its group and root may be able to read the file.
	File string `yaml:"file"`
}

// Others is the name in Config.Access of all namespaces without a line of their own.
const Others = "*"

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
