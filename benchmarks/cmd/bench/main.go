// Command bench measures the sidecar against its peers, and writes the page of results
// from the measurements. Run it in the folder benchmarks:
//
//	go run ./cmd/bench socket|memcached|cost|clients|languages|memory|gc|idle|cluster|propagation|changes|tls|sizes|loads|overload|hits|report|all [flags]
//
// Inputs are flags. Outputs are rounds/*.json (raw figures) and, with report, RESULTS.md
// and plots/*.svg. It starts the servers that it measures, and ends them. Its figures
// hold only for the machine that it runs on.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// command is one of bench's subcommands.
type command struct {
	name, does string
	run        func(ctx context.Context, p *program, args []string) error
}

var commands = []command{
	{"socket", "throughput and latency against echo, redis and memcached", socket},
	{"memcached", "the endpoint for memcached's protocol, against the sidecar's own socket and memcached", endpoint},
	{"cost", "the processor time of a request that is alone on its connection, on an idle and on busy machines", cost},
	{"clients", "Go clients: this one's, gomemcache, go-redis and rueidis", clients},
	{"languages", "clients in Python and Node: this project's, and those of redis and memcached", languages},
	{"memory", "memory of a filled sidecar and a filled memcached", memory},
	{"gc", "what many entries cost the garbage collector and the slowest reads", gc},
	{"idle", "memory of idle connections", idle},
	{"cluster", "several hosts: reads of others' keys, a host that dies, hosts that come and go", cluster},
	{"propagation", "how long an overwritten value lives on in copies, beside redis' client tracking", propagation},
	{"changes", "how fast a row that changes in PostgreSQL ends its cached values, and what that costs the database", changes},
	{"tls", "what encryption between hosts costs, beside none", encryption},
	{"sizes", "what sidecars say to each other, by their number, in virtual time", sizes},
	{"loads", "a key that many miss at once, hits where misses are loaded, an origin that is away", loads},
	{"overload", "one sidecar at three times the rate that saturates it", overload},
	{"hits", "hit ratios of the traces in a folder", hitRatios},
	{"report", "write RESULTS.md and the plots from rounds/*.json", writeReport},
}

// program is the command's outputs.
type program struct {
	out, log io.Writer
}

func run(ctx context.Context, args []string, out, log io.Writer) error {
	p := &program{out, log}
	if len(args) > 0 {
		if args[0] == "all" {
			return all(ctx, p, args[1:])
		}
		for _, c := range commands {
			if c.name == args[0] {
				return c.run(ctx, p, args[1:])
			}
		}
	}
	fmt.Fprintf(log, "usage: go run ./cmd/bench WHAT [flags]; WHAT -h lists the flags\n\n")
	for _, c := range commands {
		fmt.Fprintf(log, "  %-11s %s\n", c.name, c.does)
	}
	fmt.Fprintf(log, "  %-11s all of these in turn; hits if -traces is given\n", "all")
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		return fmt.Errorf("%q is not measured: give one of the words above", args[0])
	}
	return flag.ErrHelp
}

// all runs every measurement with default parameters, and writes the report.
func all(ctx context.Context, p *program, args []string) error {
	f := newFlags(p, "all")
	traces := f.String("traces", "", "the `folder` of traces for hits; without it their last rounds stay")
	if err := f.parse(args); err != nil {
		return err
	}
	rest := []string{"-dir", f.dir}
	for _, c := range commands {
		own := rest
		if c.name == "hits" {
			if *traces == "" {
				continue
			}
			own = append(own, "-traces", *traces)
		}
		fmt.Fprintf(p.log, "== %s: %s\n", c.name, c.does)
		if err := c.run(ctx, p, own); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}
