package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/client"
)

// maxInput bounds what set reads from stdin, in bytes.
const maxInput = 1 << 30

func (p *program) getCommand() *cli.Command {
	return &cli.Command{
		Name:      "get",
		Usage:     "print a key's value, or several",
		ArgsUsage: "KEY…",
		Description: "The value of one key is written as it is, with a newline after it on a terminal only.\n" +
			"Of several keys, each found one gives a line: the key, a tab, the value.\n" +
			"Exit status 1 if a key has no value.",
		Flags: clientFlags(nsFlag, jsonFlag,
			&cli.BoolFlag{Name: "fresh", Usage: "ask the host that owns the key, take no copy"},
		),
		Action: func(c *cli.Context) error {
			if err := args(c, 1, -1); err != nil {
				return err
			}
			return p.withClient(c, func(ctx context.Context, cl *client.Client) error {
				return p.get(ctx, c, cl)
			})
		},
	}
}

// jsonItem is a key in get's JSON.
type jsonItem struct {
	Key     string  `json:"key"`
	Found   bool    `json:"found"`
	Value   *string `json:"value,omitempty"`        // where it is UTF-8
	Base64  *string `json:"value_base64,omitempty"` // where it is not
	Flags   uint32  `json:"flags"`
	Version uint64  `json:"version"`
	TTLMS   int64   `json:"ttl_ms"` // left; 0 is no expiry
	Source  string  `json:"source,omitempty"`
	AgeMS   int64   `json:"age_ms"`
}

func (p *program) get(ctx context.Context, c *cli.Context, cl *client.Client) error {
	o := client.GetOptions{Fresh: c.Bool("fresh")}
	keys := c.Args().Slice()
	found := map[string]client.Item{}
	if len(keys) == 1 {
		it, err := cl.Get(ctx, keys[0], o)
		if err == nil {
			found[keys[0]] = it
		} else if !errors.Is(err, client.ErrNotFound) {
			return err
		}
	} else {
		var err error
		if found, err = cl.GetMulti(ctx, keys, o); err != nil {
			return err
		}
	}
	var missing error
	items := make([]jsonItem, len(keys))
	for i, k := range keys {
		it, ok := found[k]
		items[i] = jsonItem{Key: k, Found: ok, Flags: it.Flags, Version: it.Version, TTLMS: it.TTL.Milliseconds(), Source: it.Source, AgeMS: it.Age.Milliseconds()}
		switch {
		case !ok:
			missing = errMiss
			if !c.Bool("json") {
				fmt.Fprintf(p.err, "%s: not found\n", k)
			}
		case c.Bool("json"):
			if s := string(it.Value); utf8.ValidString(s) {
				items[i].Value = &s
			} else {
				s = base64.StdEncoding.EncodeToString(it.Value)
				items[i].Base64 = &s
			}
		case len(keys) == 1:
			if _, err := p.out.Write(it.Value); err != nil {
				return err
			}
			if isTerminal(p.out) {
				fmt.Fprintln(p.out)
			}
		default:
			fmt.Fprintf(p.out, "%s\t%s\n", k, it.Value)
		}
	}
	if c.Bool("json") {
		var v any = items
		if len(keys) == 1 {
			v = items[0]
		}
		if err := p.json(v); err != nil {
			return err
		}
	}
	return missing
}

func (p *program) json(v any) error {
	e := json.NewEncoder(p.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// ttlFlags are those of the writes.
var (
	ttlFlag = &cli.StringFlag{Name: "ttl", Usage: "`TIME` to live, such as 30s or 2h; 0 is no expiry (default: the namespace's)"}
	ackFlag = &cli.StringFlag{Name: "ack", Usage: "return when the `owner` has the write, or when \"all\" hosts have dropped the old value", Value: "owner"}
)

func writeOptions(c *cli.Context) (o client.SetOptions, err error) {
	if s := c.String("ttl"); s != "" {
		if s == "0" {
			o.NoExpiry = true
		} else if o.TTL, err = time.ParseDuration(s); err != nil || o.TTL < 0 {
			return o, usagef("--ttl %q: give a time such as 30s or 2h, or 0 for no expiry", s)
		} else if o.TTL == 0 {
			o.NoExpiry = true
		}
	}
	switch ack := c.String("ack"); ack {
	case "", "owner":
	case "all":
		o.AckAll = true
	default:
		return o, usagef("--ack %q: give owner or all", ack)
	}
	return o, nil
}

func (p *program) setCommand() *cli.Command {
	return &cli.Command{
		Name:        "set",
		Usage:       "store a value",
		ArgsUsage:   "KEY VALUE|-",
		Description: "VALUE - is read from stdin. Exit status 1 if a condition is not met.",
		Flags: clientFlags(nsFlag, ttlFlag, ackFlag, jsonFlag,
			&cli.BoolFlag{Name: "add", Usage: "only if the key is absent"},
			&cli.BoolFlag{Name: "replace", Usage: "only if the key is present"},
			&cli.Uint64Flag{Name: "cas", Usage: "only if the key's version is still `VERSION`"},
			&cli.UintFlag{Name: "flags", Usage: "a `NUMBER` kept with the value"},
		),
		Action: func(c *cli.Context) error {
			if err := args(c, 2, 2); err != nil {
				return err
			}
			return p.set(c)
		},
	}
}

func (p *program) set(c *cli.Context) error {
	o, err := writeOptions(c)
	if err != nil {
		return err
	}
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
		return usagef("give one of --add, --replace and --cas")
	}
	key, value := c.Args().Get(0), []byte(c.Args().Get(1))
	if string(value) == "-" {
		if value, err = io.ReadAll(io.LimitReader(p.in, maxInput)); err != nil {
			return fmt.Errorf("cannot read the value: %w", err)
		}
	}
	return p.withClient(c, func(ctx context.Context, cl *client.Client) error {
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
			return p.json(map[string]any{"key": key, "version": v})
		}
		return err
	})
}

func (p *program) delCommand() *cli.Command {
	return &cli.Command{
		Name:        "del",
		Usage:       "delete keys everywhere",
		ArgsUsage:   "KEY…",
		Description: "Exit status 1 if none of the keys had a value.",
		Flags:       clientFlags(nsFlag, jsonFlag),
		Action: func(c *cli.Context) error {
			if err := args(c, 1, -1); err != nil {
				return err
			}
			return p.withClient(c, func(ctx context.Context, cl *client.Client) error {
				n, err := cl.Delete(ctx, c.Args().Slice()...)
				if err != nil && !errors.Is(err, client.ErrNotFound) {
					return err
				}
				if c.Bool("json") {
					if e := p.json(map[string]any{"deleted": n}); e != nil {
						return e
					}
				}
				if err != nil {
					return errMiss
				}
				return nil
			})
		},
	}
}

func (p *program) touchCommand() *cli.Command {
	return &cli.Command{
		Name:        "touch",
		Usage:       "give keys a new time to live",
		ArgsUsage:   "KEY…",
		Description: "Exit status 1 if a key has no value.",
		Flags:       clientFlags(nsFlag, ttlFlag),
		Action: func(c *cli.Context) error {
			if err := args(c, 1, -1); err != nil {
				return err
			}
			o, err := writeOptions(c)
			if err != nil {
				return err
			}
			return p.withClient(c, func(ctx context.Context, cl *client.Client) error {
				var missing error
				for _, k := range c.Args().Slice() {
					switch err := cl.Touch(ctx, k, o); {
					case errors.Is(err, client.ErrNotFound):
						fmt.Fprintf(p.err, "%s: not found\n", k)
						missing = errMiss
					case err != nil:
						return err
					}
				}
				return missing
			})
		},
	}
}

func (p *program) incrCommand() *cli.Command {
	return &cli.Command{
		Name:        "incr",
		Usage:       "add to a number and print the sum",
		ArgsUsage:   "KEY [DELTA]",
		Description: "DELTA may be negative; it is 1 if left out. Exit status 1 if the key has no value and no --initial is given.",
		Flags: clientFlags(nsFlag, ttlFlag, jsonFlag,
			&cli.StringFlag{Name: "initial", Usage: "the `NUMBER` that an absent key becomes"},
		),
		Action: func(c *cli.Context) error {
			if err := args(c, 1, 2); err != nil {
				return err
			}
			delta := int64(1)
			var err error
			if c.NArg() == 2 {
				if delta, err = strconv.ParseInt(c.Args().Get(1), 10, 64); err != nil {
					return usagef("incr: %q is no 64-bit number", c.Args().Get(1))
				}
			}
			o, err := writeOptions(c)
			if err != nil {
				return err
			}
			initial, err := strconv.ParseInt(c.String("initial"), 10, 64)
			if err != nil && c.IsSet("initial") {
				return usagef("--initial %q is no 64-bit number", c.String("initial"))
			}
			key := c.Args().First()
			return p.withClient(c, func(ctx context.Context, cl *client.Client) error {
				var sum int64
				if c.IsSet("initial") {
					sum, err = cl.IncrFrom(ctx, key, delta, initial, o)
				} else {
					sum, err = cl.Incr(ctx, key, delta, o)
				}
				switch {
				case err != nil:
					return err
				case c.Bool("json"):
					return p.json(map[string]any{"key": key, "value": sum})
				}
				fmt.Fprintln(p.out, sum)
				return nil
			})
		},
	}
}
