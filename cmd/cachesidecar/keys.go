package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// maxInput limits what set reads from stdin, in bytes. It is the highest max_value.
const maxInput = 1 << 30

var ackFlag = &cli.StringFlag{
	Name:  "ack",
	Usage: "return when `HOSTS` have the write: its owner, or \"all\" hosts have dropped the old value",
	Value: "owner",
	Action: func(_ *cli.Context, ack string) error {
		if ack != "owner" && ack != "all" {
			return usagef("--ack %q: give owner or all", ack)
		}
		return nil
	},
}

func ttlFlag() cli.Flag {
	return timeFlag("ttl", "`TIME` to live, such as 30s, 2h or 7d; 0 is no expiry (default: the namespace's)",
		0, 0, wire.MaxTTL*time.Millisecond)
}

func writeOptions(c *cli.Context) cachesidecar.SetOptions {
	ttl := c.Duration("ttl")
	return cachesidecar.SetOptions{TTL: ttl, NoExpiry: c.IsSet("ttl") && ttl == 0, AckAll: c.String("ack") == "all"}
}

func setCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:        "set",
		Usage:       "store a value",
		ArgsUsage:   "KEY VALUE|-",
		Description: "VALUE - is read from stdin. Exit status 1 if a condition is not met.",
		Flags: clientFlags(nsFlag, ttlFlag(), ackFlag, jsonFlag,
			boolFlag("add", "only if the key is absent"),
			boolFlag("replace", "only if the key is present"),
			&cli.Uint64Flag{Name: "cas", DefaultText: "none", Usage: "only if the key's version is still `VERSION`"},
			&cli.UintFlag{Name: "flags", Usage: "a `NUMBER` kept with the value"},
		),
		Action: counted(2, 2, p.set),
	}
}

func (p *program) set(c *cli.Context) error {
	o := writeOptions(c)
	if n := c.Uint("flags"); n > 1<<32-1 {
		return usagef("--flags %d: give a number below 2^32", n)
	}
	o.Flags = uint32(c.Uint("flags"))
	conditions := 0
	for _, f := range []string{"add", "replace", "cas"} {
		if c.IsSet(f) {
			conditions++
		}
	}
	if conditions > 1 {
		return usagef("--add, --replace and --cas: give one of them")
	}
	var err error
	key, value := c.Args().Get(0), []byte(c.Args().Get(1))
	if string(value) == "-" {
		if value, err = readValue(c.Context, p.in, maxInput); err != nil {
			return err
		}
	}
	return ask(c, func(ctx context.Context, cl *client.Client) error {
		var v uint64
		switch {
		case c.Bool("add"):
			v, err = cl.Add(ctx, key, value, o)
		case c.Bool("replace"):
			v, err = cl.Replace(ctx, key, value, o)
		case c.IsSet("cas"):
			v, err = cl.CompareAndSwap(ctx, key, value, c.Uint64("cas"), o)
		default:
			v, err = cl.Set(ctx, key, value, o)
		}
		if err == nil && c.Bool("json") {
			return p.json(stored{key, v})
		}
		return ofKey(key, err)
	})
}

// stored is the JSON of set.
type stored struct {
	Key     string `json:"key"`
	Version uint64 `json:"version,string"`
}

// ofKey adds the key to ErrNotFound.
func ofKey(key string, err error) error {
	if errors.Is(err, cachesidecar.ErrNotFound) {
		return fmt.Errorf("%s: %w", key, err)
	}
	return err
}

// readValue reads in to its end, at most most bytes.
func readValue(ctx context.Context, in io.Reader, most int) ([]byte, error) {
	value, err := waitFor(ctx, func() ([]byte, error) { return io.ReadAll(io.LimitReader(in, int64(most)+1)) })
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot read the value from stdin: %w", err)
	case len(value) > most:
		return nil, fmt.Errorf("stdin has more than %d bytes, the most that a value may have: split it", most)
	}
	return value, nil
}

func delCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:        "del",
		Aliases:     []string{"delete", "rm"},
		Usage:       "delete keys everywhere",
		ArgsUsage:   "KEY…",
		Description: "Exit status 1 if none of the keys had a value.",
		Flags: clientFlags(nsFlag, ackFlag, jsonFlag,
			boolFlag("soft", "leave the values to reads that accept stale ones, for the namespace's stale_limit"),
			boolFlag("cache-only", "leave the origin of a namespace that writes through as it is"),
			timeFlag("replica-lag", "keep nothing that is loaded within `TIME`, as long as replicas lag; "+
				"at most the namespace's replica_lag, which is the default", 0, time.Millisecond, year),
		),
		Action: counted(1, -1, p.del),
	}
}

func (p *program) del(c *cli.Context) error {
	o := writeOptions(c)
	del := cachesidecar.DeleteOptions{
		AckAll: o.AckAll, Soft: c.Bool("soft"), CacheOnly: c.Bool("cache-only"), ReplicaLag: c.Duration("replica-lag"),
	}
	keys := c.Args().Slice()
	return ask(c, func(ctx context.Context, cl *client.Client) error {
		n, err := cl.DeleteMulti(ctx, keys, del)
		if err != nil {
			return err
		}
		var missing error
		if n == 0 {
			missing = errMiss
		}
		if c.Bool("json") {
			return cmp.Or(p.json(map[string]any{"deleted": n}), missing)
		}
		if missing != nil {
			writeMissing(p.err, strings.Join(keys, ", "), cachesidecar.ErrNotFound)
		}
		return missing
	})
}

func touchCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:        "touch",
		Usage:       "give keys a new time to live",
		ArgsUsage:   "KEY…",
		Description: "Exit status 1 if a key has no value.",
		Flags:       clientFlags(nsFlag, ttlFlag()),
		Action:      counted(1, -1, p.touch),
	}
}

func (p *program) touch(c *cli.Context) error {
	o := writeOptions(c)
	return ask(c, func(ctx context.Context, cl *client.Client) error {
		var missing error
		for _, k := range c.Args().Slice() {
			switch err := cl.Touch(ctx, k, cachesidecar.TouchOptions{TTL: o.TTL, NoExpiry: o.NoExpiry}); {
			case errors.Is(err, cachesidecar.ErrNotFound):
				writeMissing(p.err, k, cachesidecar.ErrNotFound)
				missing = errMiss
			case err != nil:
				return err
			}
		}
		return missing
	})
}

func incrCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:      "incr",
		Usage:     "add to a number and print the sum",
		ArgsUsage: "KEY [DELTA]",
		Description: "DELTA may be negative; it is 1 if left out. " +
			"Exit status 1 if the key has no value and no --initial is given.",
		Flags: clientFlags(nsFlag, ttlFlag(), jsonFlag,
			&cli.StringFlag{Name: "initial", Usage: "the `NUMBER` that an absent key becomes"},
		),
		Action: counted(1, 2, p.incr),
	}
}

func (p *program) incr(c *cli.Context) error {
	delta := int64(1)
	var err error
	if c.NArg() == 2 {
		if delta, err = strconv.ParseInt(c.Args().Get(1), 10, 64); err != nil {
			return usagef("incr: %q is no 64-bit number", c.Args().Get(1))
		}
	}
	o := writeOptions(c)
	initial, err := strconv.ParseInt(c.String("initial"), 10, 64)
	if err != nil && c.IsSet("initial") {
		return usagef("--initial %q is no 64-bit number", c.String("initial"))
	}
	key := c.Args().First()
	return ask(c, func(ctx context.Context, cl *client.Client) error {
		sum, err := cl.Incr(ctx, key, delta, cachesidecar.IncrOptions{
			Create: c.IsSet("initial"), Initial: initial, TTL: o.TTL, NoExpiry: o.NoExpiry,
		})
		if err != nil {
			return ofKey(key, err)
		}
		return p.show(c, map[string]any{"key": key, "value": sum}, fmt.Sprintln(sum))
	})
}
