package redisorigin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/gomodule/redigo/redis"

	"github.com/cachesidecar/cachesidecar/loader"
)

// conn is a connection whose calls end with their contexts.
type conn struct {
	redis.ConnWithContext
	stream *stream
	terms  *loader.Terms
	term   loader.Term
}

// Send puts a command before the next one of DoContext.
func (c *conn) Send(command string, args ...any) error {
	c.stream.limited.due++
	return c.ConnWithContext.Send(command, args...)
}

// DoContext sends a command and returns its reply; without a command, the replies to those of
// Send. If ctx ends before, the connection is
// closed, because the reply may still come. It is also closed if more has come than the
// replies: a later command would take the rest for its own reply.
func (c *conn) DoContext(ctx context.Context, command string, args ...any) (any, error) {
	if command != "" {
		c.stream.limited.due++
	}
	if c.stream.limited.arrays = 0; command == "SCAN" {
		c.stream.limited.arrays = scanArrays
	}
	defer c.stream.limited.reserved.Free()
	var reply any
	err := c.stream.during(ctx, func() (err error) {
		reply, err = c.Do(command, args...)
		return err
	})
	if !c.stream.limited.settled() {
		c.stream.kill()
		if err == nil {
			return nil, errSurplus
		}
	}
	if elsewhere(reply, err) {
		c.terms.End(c.term)
		c.stream.kill()
	}
	return reply, err
}

// elsewhere reports whether the server has said that it does not serve such requests now, and another one
// may: the server is a replica, has no link to its primary or its replicas, or has just started; or it has
// forgotten the login, as a proxy may after a failover.
func elsewhere(reply any, err error) bool {
	switch code(err) {
	case "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MOVED", "NOAUTH", "NOREPLICAS", "READONLY":
		return true
	}
	replies, _ := reply.([]any)
	return slices.ContainsFunc(replies, func(r any) bool {
		err, _ := r.(redis.Error)
		return err != "" && elsewhere(nil, err)
	})
}

// stream is the connection's bytes. It knows whether a context has closed it.
type stream struct {
	net.Conn          // the bytes of the protocol, limited
	base     net.Conn // the same, encrypted if TLS is on
	limited  *limitedConn
	killed   atomic.Bool
}

// kill closes the connection. Calls that use it fail.
func (st *stream) kill() {
	st.killed.Store(true)
	_ = st.base.Close()
}

// during calls f, and closes the connection if ctx ends before f does.
func (st *stream) during(ctx context.Context, f func() error) error {
	stop := context.AfterFunc(ctx, st.kill)
	err := f()
	if !stop() { // kill may still run: the connection must not be used again
		st.kill()
	}
	if err != nil && code(err) == "" && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// check reports why a connection cannot be used again.
func (c *conn) check() error {
	if c.stream.killed.Load() || c.terms.Over(c.term) {
		return net.ErrClosed
	}
	return loader.Idle(c.stream.base)
}

var errRefusedLogin = errors.New("the server refuses username, password or db: " +
	"correct them, or leave out what it does not know")

// dialError is an error of a connection that was not established, or not authenticated.
type dialError struct{ error }

func (e dialError) Unwrap() error { return e.error }

// dial connects to the server, and authenticates, within the timeout of a load.
func (s *Source) dial(ctx context.Context) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	network := "tcp"
	if strings.HasPrefix(s.cfg.Address, "/") {
		network = "unix"
	}
	term := s.terms.Begin()
	base, err := new(net.Dialer).DialContext(ctx, network, s.cfg.Address)
	if err != nil {
		return nil, dialError{err}
	}
	st := &stream{Conn: base, base: base}
	var c redis.Conn
	err = st.during(ctx, func() (err error) {
		if st.Conn, err = s.encrypt(ctx, base); err != nil {
			return err
		}
		st.limited = newLimited(st.Conn, s.options)
		st.Conn = st.limited
		if s.cfg.Password != "" {
			st.limited.due++ // AUTH
		}
		if s.cfg.DB != 0 {
			st.limited.due++ // SELECT
		}
		c, err = redis.DialContext(ctx, network, s.cfg.Address,
			redis.DialContextFunc(func(context.Context, string, string) (net.Conn, error) { return st, nil }),
			redis.DialUsername(s.cfg.Username), redis.DialPassword(s.cfg.Password), redis.DialDatabase(s.cfg.DB),
			redis.DialReadTimeout(s.options.Timeout), redis.DialWriteTimeout(s.options.Timeout))
		if code(err) == "ERR" { // its text may repeat the password
			err = errRefusedLogin
		}
		return err
	})
	if err != nil {
		st.kill()
		return nil, dialError{err}
	}
	with, ok := c.(redis.ConnWithContext)
	if !ok {
		st.kill()
		return nil, dialError{errors.New("the library's connection takes no context")}
	}
	return &conn{with, st, &s.terms, term}, nil
}

// encrypt returns the connection under TLS, if that is on.
func (s *Source) encrypt(ctx context.Context, base net.Conn) (net.Conn, error) {
	if s.tls == nil {
		return base, nil
	}
	cfg := s.tls.Clone()
	if host, _, err := net.SplitHostPort(s.cfg.Address); err == nil {
		cfg.ServerName = host
	}
	t := tls.Client(base, cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return t, nil
}
