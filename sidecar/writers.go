package sidecar

import (
	"context"
	"errors"

	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/loader/execorigin"
	"github.com/cachesidecar/cachesidecar/loader/httporigin"
	"github.com/cachesidecar/cachesidecar/loader/memcached"
	"github.com/cachesidecar/cachesidecar/loader/postgres"
	"github.com/cachesidecar/cachesidecar/loader/redisorigin"
)

// writer makes what takes a namespace's changes; nil where nothing is written
// through.
func (o *opened) writer(n Namespace) (loader.Writer, error) {
	switch {
	case !n.WriteThrough && o.writes:
		return nil, errors.New("there are settings of writes, and write_through is off: set it, or leave them out")
	case !n.WriteThrough:
		return nil, nil
	case n.Writer != nil:
		return n.Writer, nil
	case o.write == nil:
		return nil, errors.New("write_through: a Source takes no writes: give a Writer too")
	}
	w, err := o.write()
	if err != nil {
		return nil, err
	}
	o.also(w)
	return hidingWriter{w, o.hide}, nil
}

func (h *HTTPOrigin) writer(s *httporigin.Source) func() (loader.Writer, error) {
	return func() (loader.Writer, error) {
		return s.NewWriter(httporigin.WriteConfig{StoreMethod: h.StoreMethod, DeleteMethod: h.DeleteMethod, ContentType: h.ContentType})
	}
}

func (p *PostgresOrigin) writer(s *postgres.Source) func() (loader.Writer, error) {
	return func() (loader.Writer, error) {
		return s.NewWriter(postgres.WriteConfig{Store: p.Store, Delete: p.Delete})
	}
}

func (r *RedisOrigin) writer(s *redisorigin.Source) func() (loader.Writer, error) {
	return func() (loader.Writer, error) { return s.NewWriter(redisorigin.WriteConfig{TTL: r.StoreTTL}) }
}

func (m *MemcachedOrigin) writer(s *memcached.Source) func() (loader.Writer, error) {
	return func() (loader.Writer, error) { return s.NewWriter(memcached.WriteConfig{TTL: m.StoreTTL}) }
}

func (e *ExecOrigin) writer(s *execorigin.Source) func() (loader.Writer, error) {
	return func() (loader.Writer, error) {
		return s.NewWriter(execorigin.WriteConfig{Store: e.Store, Delete: e.Delete, Refused: e.Refused})
	}
}

// hidingWriter is a writer whose errors show none of the secrets.
type hidingWriter struct {
	to   loader.Writer
	hide secrets
}

func (h hidingWriter) Store(ctx context.Context, key []byte, v loader.Value) error {
	return h.hide.hide(h.to.Store(ctx, key, v))
}

func (h hidingWriter) Delete(ctx context.Context, key []byte) error {
	return h.hide.hide(h.to.Delete(ctx, key))
}
