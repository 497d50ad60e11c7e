package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// Flags that client commands share.
var (
	socketFlag = fileFlag("socket", "the sidecar's socket `PATH` (default: $CACHESIDECAR_SOCKET, or the one found)")
	tokenFlag  = fileFlag("token-file", "show the sidecar the token in `FILE` (default: $"+envTokenFile+", or none)")
	jsonFlag   = boolFlag("json", "print one JSON document")
	nsFlag     = &cli.StringFlag{Name: "ns", Usage: "the `NAMESPACE`", Value: "default", Action: notEmpty}
)

func timeoutFlag(usage string, def time.Duration) cli.Flag {
	return timeFlag("timeout", usage, def, time.Millisecond, year)
}

func clientFlags(more ...cli.Flag) []cli.Flag {
	return append(more, socketFlag, tokenFlag, timeoutFlag("wait this `TIME` for the answer", 10*time.Second))
}

// envTokenFile is the environment variable of --token-file.
const envTokenFile = "CACHESIDECAR_TOKEN_FILE"

func tokenFile(c *cli.Context) string { return cmp.Or(c.String("token-file"), os.Getenv(envTokenFile)) }

// notEmpty refuses an empty namespace, which an unset shell variable gives. An empty
// namespace would mean all namespaces, or the default one.
func notEmpty(_ *cli.Context, ns string) error {
	if ns == "" {
		return usagef(`--ns "": give a namespace's name, or leave the flag out`)
	}
	return nil
}

// withClient connects and calls f with a context that ends at the timeout, connecting included.
func withClient(c *cli.Context, f func(ctx context.Context, cl *client.Client) error) error {
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	cl, err := connect(ctx, c)
	if err != nil {
		return err
	}
	defer cl.Close()
	return explain(c, f(ctx, cl))
}

// withArgsAndClient returns an action that checks the number of arguments as withArgs does, and calls f as
// withClient does.
func withArgsAndClient(
	least, most int, f func(ctx context.Context, c *cli.Context, cl *client.Client) error,
) cli.ActionFunc {
	return withArgs(least, most, func(c *cli.Context) error {
		return withClient(c, func(ctx context.Context, cl *client.Client) error { return f(ctx, c, cl) })
	})
}

// connect connects as the flags of every client command say. The client works in the
// namespace of --ns, if the command has one.
func connect(ctx context.Context, c *cli.Context) (*client.Client, error) {
	path, err := findSocket(c)
	if err != nil {
		return nil, err
	}
	timeout := c.Duration("timeout")
	dial := timeout
	if !c.IsSet("timeout") { // that of drain is an hour
		dial = min(timeout, 30*time.Second)
	}
	cl, err := client.Dial(ctx, client.Config{
		NoSharedMemory: true, // one command, one answer
		Socket:         path, TokenFile: tokenFile(c), Name: "cachesidecar-cli",
		Conns: 1, DialTimeout: dial, RequestTimeout: timeout,
	})
	if err != nil {
		return nil, explain(c, err)
	}
	if ns := c.String("ns"); ns != "" {
		cl = cl.InNamespace(ns)
	}
	return cl, nil
}

// findSocket returns the socket of --socket, or the one that is found.
func findSocket(c *cli.Context) (path string, err error) {
	if path, err = unixsock.Find(c.String("socket")); err != nil {
		return "", fmt.Errorf("%w: %w", cachesidecar.ErrUnavailable, err)
	}
	return path, nil
}

// explain adds to an error what the user may do.
func explain(c *cli.Context, err error) error {
	var op *net.OpError
	switch {
	case timedOut(err):
		return fmt.Errorf("%w (--timeout is %v: wait longer with it; \"cachesidecar slow\" says what calls wait for)",
			err, c.Duration("timeout"))
	case errors.Is(err, cachesidecar.ErrUnsupported):
		return fmt.Errorf("%w: if the sidecar runs an older version, restart it with this one (%s)",
			err, buildVersion())
	case errors.Is(err, cachesidecar.ErrNoOwner):
		return fmt.Errorf("%w (nothing was done; \"cachesidecar members\" shows the hosts)", err)
	case errors.As(err, new(*unixsock.PermissionError)): // it says what to do
	case errors.As(err, &op) && op.Op == "dial":
		return fmt.Errorf("%w: is the sidecar running there? "+
			"Start it with \"cachesidecar run\", or name its socket with --socket", err)
	}
	return err
}

// waitFor calls f, which reads stdin. It returns when f returns or ctx ends. If ctx ends
// first, f continues: only the end of the process, which is near, can interrupt such a
// read.
func waitFor[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}
