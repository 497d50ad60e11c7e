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

// fileConfig is what a configuration file may say: the sidecar's own settings,
// and the log's.
type fileConfig struct {
	sidecar.Config `yaml:",inline"`
	LogFormat      string                   `yaml:"log_format"`
	LogLevel       string                   `yaml:"log_level"`
	InFile         map[string]fileNamespace `yaml:"namespaces"` // Config.Namespaces is made of it
}

// fileNamespace is the settings of a namespace.
type fileNamespace struct {
	sidecar.Namespace `yaml:",inline"`
	Origin            *fileOrigin `yaml:"origin"`
}

// fileOrigin is an origin: exactly one of these.
type fileOrigin struct {
	HTTP      *httporigin.Config  `yaml:"http"`
	Postgres  *postgres.Config    `yaml:"postgres"`
	Redis     *redisorigin.Config `yaml:"redis"`
	Memcached *memcached.Config   `yaml:"memcached"`
	Exec      *execorigin.Config  `yaml:"exec"`
}

// complete makes the namespaces of what the file says.
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

// one returns the kind of origin that is given, or nil.
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
