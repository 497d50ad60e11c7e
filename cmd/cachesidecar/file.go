package main

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/loader/execorigin"
	"github.com/cachesidecar/cachesidecar/loader/httporigin"
	"github.com/cachesidecar/cachesidecar/loader/memcached"
	"github.com/cachesidecar/cachesidecar/loader/postgres"
	"github.com/cachesidecar/cachesidecar/loader/redisorigin"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// fileConfig is the content of a configuration file: the settings of the sidecar and of
// the log.
type fileConfig struct {
	sidecar.Config `yaml:",inline"`
	LogFormat      string                   `yaml:"log_format"`
	LogLevel       string                   `yaml:"log_level"`
	InFile         map[string]fileNamespace `yaml:"namespaces"` // becomes Config.Namespaces
}

// fileNamespace is the settings of a namespace.
type fileNamespace struct {
	sidecar.Namespace `yaml:",inline"`
	Origin            *fileOrigin `yaml:"origin"`
}

// fileOrigin is an origin. Exactly one field is set.
type fileOrigin struct {
	HTTP      *httporigin.Config  `yaml:"http"`
	Postgres  *postgres.Config    `yaml:"postgres"`
	Redis     *redisorigin.Config `yaml:"redis"`
	Memcached *memcached.Config   `yaml:"memcached"`
	Exec      *execorigin.Config  `yaml:"exec"`
}

// complete makes Config.Namespaces from the namespaces in the file.
func (c *fileConfig) complete() error {
	for name, ns := range c.InFile {
		origin, err := ns.Origin.one()
		if err != nil {
			return fmt.Errorf("namespace %s: %w", name, err)
		}
		if c.Namespaces == nil {
			c.Namespaces = map[string]sidecar.Namespace{}
		}
		ns.Namespace.Origin = origin
		c.Namespaces[name] = ns.Namespace
	}
	c.InFile = nil
	return nil
}

// one returns the origin that is set, or nil if o is nil.
func (o *fileOrigin) one() (given loader.OriginConfig, err error) {
	if o == nil {
		return nil, nil
	}
	for _, v := range reflect.ValueOf(*o).Fields() {
		switch {
		case v.IsNil():
		case given != nil:
			return nil, fmt.Errorf("origin: %s and %s are given: give one of them", given.Kind(), v.Interface().(loader.OriginConfig).Kind())
		default:
			given = v.Interface().(loader.OriginConfig)
		}
	}
	if given == nil {
		return nil, errors.New("origin: nothing is given: give http, postgres, redis, memcached or exec, with its settings")
	}
	return given, nil
}
