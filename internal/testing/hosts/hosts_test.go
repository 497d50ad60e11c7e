package hosts

import (
	"context"

	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
	"github.com/cachesidecar/cachesidecar/internal/testhook"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/sidecar"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// The words of package sidecar that the tests use all the time.
type (
	Config       = sidecar.Config
	Namespace    = sidecar.Namespace
	Grants       = sidecar.Grants
	Token        = sidecar.Token
	Feed         = sidecar.Feed
	Warm         = sidecar.Warm
	ExistingKeys = sidecar.ExistingKeys
	Limits       = sidecar.Limits
	Breaker      = sidecar.Breaker
	Size         = sidecar.Size
	TLSFiles     = sidecar.TLSFiles
)

const (
	DefaultNamespace  = sidecar.DefaultNamespace
	DefaultTTL        = sidecar.DefaultTTL
	DefaultLeaseTime  = sidecar.DefaultLeaseTime
	DefaultStaleLimit = sidecar.DefaultStaleLimit
)

// Sidecar is a sidecar with its parts.
type Sidecar struct {
	*sidecar.Sidecar
	cfg       Config // of the start
	engine    *engine.Engine
	telemetry *telemetry.Telemetry
	sessions  *session.Sessions
	server    *server.Server
	parts     testhook.Parts
	door      string // address of its endpoint for memcached's protocol
}

// New returns a sidecar on this machine.
func New(cfg Config) (*Sidecar, error) { return newOn(cfg, testhook.Machine{}) }

// newOn returns a sidecar on a machine of the test.
func newOn(cfg Config, on testhook.Machine) (*Sidecar, error) {
	s, parts, err := testhook.New(cfg, on)
	if err != nil {
		return nil, err
	}
	start, _ := parts.Configs()
	return &Sidecar{
		Sidecar: s.(*sidecar.Sidecar), cfg: start.(Config), engine: parts.Engine, telemetry: parts.Telemetry,
		sessions: parts.Sessions, server: parts.Server, parts: parts,
	}, nil
}

func (s *Sidecar) execute(ctx context.Context, q *wire.Request) (wire.Reply, error) {
	return s.parts.Execute(ctx, q)
}

func (s *Sidecar) readiness() (words string, ready bool) { return s.parts.Readiness() }

// present returns the configuration in effect.
func (s *Sidecar) present() Config {
	_, present := s.parts.Configs()
	return present.(Config)
}

// byRoot is a caller that may do everything.
func byRoot(c *engine.Engine) access.Caller { return c.Access.Caller(unixsock.Peer{UID: 0}) }

func ptr[T any](v T) *T { return &v }

// own is an origin in the program.
func own(load loader.SourceFunc) loader.Custom { return loader.Custom{Source: load} }
