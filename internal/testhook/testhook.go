// Package testhook is where tests of several hosts take hold of a sidecar: what they replace of its machine and
// its network, and what they see of its parts. The public API of package sidecar shows no internal type, and
// tests in another package want a clock that stops and a network in memory.
//
// Input is the configuration of a sidecar and what stands for the machine; output is the sidecar with its parts.
// The package starts nothing and has no goroutine. It is for tests alone: no program calls New.
package testhook

import (
	"context"
	"net"
	"os"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// KeptName is the name under which systemd keeps the memory of the entries while no process runs.
const KeptName = "cachesidecar-memory"

// Machine is what a test replaces. A zero field is that of the real machine.
type Machine struct {
	Clock        kv.Clock
	Network      cluster.Network
	Events       int           // length of the log
	Passed       []*os.File    // by systemd
	ReadPatience time.Duration // how long a read waits for an owner
}

// Parts are what a test sees of a sidecar.
type Parts struct {
	Engine    *engine.Engine
	Telemetry *telemetry.Telemetry
	Sessions  *session.Sessions
	Server    *server.Server // of the socket
	Keys      *peer.KeyWatch
	Host      session.Host // the sidecar, as its sessions see it

	Execute   func(context.Context, *wire.Request) (wire.Reply, error) // in any namespace
	Readiness func() (words string, ready bool)
	Configs   func() (start, present any) // each a sidecar.Config
	Memcached func(net.Listener)          // is that of the endpoint; before Run
	NotReady  func() string
}

// New is sidecar.New on a machine: cfg is a sidecar.Config, and s a *sidecar.Sidecar. Package sidecar sets it.
var New func(cfg any, on Machine) (s any, parts Parts, err error)
