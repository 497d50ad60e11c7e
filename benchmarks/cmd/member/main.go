// Command member is one node of a cache that lives inside a program: of groupcache, of
// olric, or an embedded sidecar. It owns keys, or it asks another node for that node's
// keys. Package member makes the load.
//
//	member [flags] groupcache|olric|sidecar
//
// Its input is one line per order. Its output is one line when it is ready, and one line
// per answer. It ends when its input ends. Its log goes to standard error, warnings and
// above.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/cachesidecar/cachesidecar/benchmarks/member"
)

// config is a node's configuration.
type config struct {
	member.Config
	asks  bool     // true: it asks another node; false: it owns the keys
	self  string   // the node's address
	all   []string // the addresses of all nodes
	dir   string   // for a socket
	limit int64    // bytes for its entries
	from  string   // URL of its origin, with {key}; if set, it takes crowd orders
}

// nodes start a node of each kind, and return when it knows the other nodes.
var nodes = map[string]func(ctx context.Context, c *config, log *slog.Logger) (node member.Node, stop func(), err error){
	"groupcache": startGroupcache,
	"olric":      startOlric,
	"sidecar":    startSidecar,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "member:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	var c config
	f := flag.NewFlagSet("member", flag.ContinueOnError)
	f.BoolVar(&c.asks, "asks", false, "ask for keys that another node owns")
	f.StringVar(&c.self, "self", "", "this node's `host:port`; the port after it is free too")
	all := f.String("all", "", "all nodes' `host:port,…`")
	f.StringVar(&c.dir, "dir", ".", "a `folder` for sockets")
	f.Int64Var(&c.limit, "limit", 256<<20, "`bytes` for what it holds")
	f.StringVar(&c.from, "origin", "", "load from this `URL`, which has {key}, and take orders of crowds")
	f.IntVar(&c.Keys, "keys", 1000, "how many keys to ask for")
	f.IntVar(&c.KeySize, "key-size", 16, "of keys, in bytes")
	f.IntVar(&c.ValueSize, "value-size", 100, "of values, in bytes")
	f.IntVar(&c.Workers, "workers", 1, "how many ask at the same time")
	if err := f.Parse(args); err != nil {
		return err
	}
	c.all = strings.Split(*all, ",")
	start := nodes[f.Arg(0)]
	if start == nil || f.NArg() != 1 {
		return fmt.Errorf("%q is no kind of node: give groupcache, olric or sidecar", f.Args())
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	node, stop, err := start(ctx, &c, log)
	if err != nil {
		return err
	}
	defer stop()
	if c.from != "" {
		return member.ServeCrowds(ctx, node, in, out)
	}
	if !c.asks {
		if err := json.NewEncoder(out).Encode(member.Ready{Ready: true}); err != nil {
			return err
		}
		_, err := io.Copy(io.Discard, in) // until the input ends
		return err
	}
	m, err := member.New(ctx, c.Config, node)
	if err != nil {
		return err
	}
	return m.Serve(ctx, in, out)
}
