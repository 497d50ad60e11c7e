package main

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// valueCommands are those about keys and their values.
func valueCommands(p *program) []*cli.Command {
	return []*cli.Command{{
		Name:      "get",
		Aliases:   []string{"mget"},
		Usage:     "print a key's value, or several",
		ArgsUsage: "KEY…",
		Description: "The value of one key is written as it is, with a newline after it on a terminal only.\n" +
			"Of several keys, each found one gives a line: the key, a tab, the value.\n" +
			"Exit status 1 if a key has no value.",
		Flags: clientFlags(nsFlag, jsonFlag,
			boolFlag("fresh", "ask the host that owns the key, take no copy"),
			boolFlag("stale-ok", "accept a value after its end if there is no current one: "+
				"softly deleted, or kept by stale_if_error or stale_while_revalidate"),
		),
		Action: withArgsAndClient(1, -1, p.get),
	}, {
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
		Action: withArgs(2, 2, p.set),
	}, {
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
		Action: withArgsAndClient(1, -1, p.del),
	}, {
		Name:        "touch",
		Usage:       "give keys a new time to live",
		ArgsUsage:   "KEY…",
		Description: "Exit status 1 if a key has no value.",
		Flags:       clientFlags(nsFlag, ttlFlag()),
		Action:      withArgsAndClient(1, -1, p.touch),
	}, {
		Name:      "incr",
		Usage:     "add to a number and print the sum",
		ArgsUsage: "KEY [DELTA]",
		Description: "DELTA may be negative; it is 1 if left out. " +
			"Exit status 1 if the key has no value and no --initial is given.",
		Flags: clientFlags(nsFlag, ttlFlag(), jsonFlag,
			&cli.StringFlag{Name: "initial", Usage: "the `NUMBER` that an absent key becomes"},
		),
		Action: withArgs(1, 2, p.incr),
	}, {
		Name:      "ttl",
		Usage:     "print how long a key has to live, or several",
		ArgsUsage: "KEY…",
		Description: "It changes nothing, and never asks the origin.\n" +
			"Of several keys, each found one gives a line: the key, a tab, the time.\n" +
			"Exit status 1 if a key has no value.",
		Flags:  clientFlags(nsFlag, jsonFlag),
		Action: withArgsAndClient(1, -1, p.ttl),
	}}
}

// jsonItem is a key in get's JSON.
type jsonItem struct {
	Key     string  `json:"key"`
	Found   bool    `json:"found"`
	Value   *string `json:"value,omitempty"`        // if it is UTF-8
	Base64  *string `json:"value_base64,omitempty"` // if it is not UTF-8
	Flags   uint32  `json:"flags"`
	Version uint64  `json:"version,string"` // most readers of JSON round numbers above 2^53
	TTLMS   int64   `json:"ttl_ms"`         // remaining; 0: no expiry
	Source  string  `json:"source,omitempty"`
	AgeMS   int64   `json:"age_ms"`          // for which the value may have been outdated
	Stale   bool    `json:"stale,omitempty"` // softly deleted, AgeMS ago
	Error   string  `json:"error,omitempty"` // of one key beside others
}

// readKey is a key that was read.
type readKey struct {
	cachesidecar.Item
	key    string
	found  bool
	failed string // why it was not read, beside others
}

// jsonItemOf describes a key.
func jsonItemOf(it readKey) jsonItem {
	if !it.found {
		return jsonItem{Key: it.key, Error: it.failed}
	}
	j := jsonItem{
		Key: it.key, Found: true, Flags: it.Flags, Version: it.Version,
		TTLMS: it.TTL.Milliseconds(), Source: it.Source, AgeMS: it.Age.Milliseconds(), Stale: it.Stale,
	}
	j.Value, j.Base64 = textOrBase64(string(it.Value))
	return j
}

// textOrBase64 returns the form that bytes have in JSON: as they are if they are UTF-8.
func textOrBase64(b string) (text, encoded *string) {
	if utf8.ValidString(b) {
		return &b, nil
	}
	b = base64.StdEncoding.EncodeToString([]byte(b))
	return nil, &b
}

func (p *program) get(ctx context.Context, c *cli.Context, cl *client.Client) error {
	end := ""
	if isTerminal(p.out) {
		end = "\n"
	}
	o := cachesidecar.GetOptions{Fresh: c.Bool("fresh"), StaleOK: c.Bool("stale-ok")}
	return p.describeKeys(ctx, c, cl, o, end, func(it readKey) (any, string) {
		return jsonItemOf(it), string(it.Value)
	})
}

// describeKeys reads the keys of the arguments, and prints documents that describe them, or their texts: that of one
// key and end, or a line for each of several keys that has a value. One key that fails keeps no other back.
func (p *program) describeKeys(
	ctx context.Context, c *cli.Context, cl *client.Client, o cachesidecar.GetOptions, end string,
	describe func(readKey) (document any, text string),
) error {
	keys := c.Args().Slice()
	found, why, err := lookUp(ctx, cl, keys, o)
	var some *cachesidecar.BatchError
	if err != nil && !errors.As(err, &some) {
		return err
	}
	missing := err
	var text strings.Builder
	documents := make([]any, len(keys))
	for i, k := range keys {
		r := readKey{key: k}
		r.Item, r.found = found[k]
		if some != nil && some.Errors[k] != nil {
			r.failed = some.Errors[k].Error()
		}
		document, one := describe(r)
		documents[i] = document
		switch {
		case r.failed != "":
			if k != some.Keys[0] && !c.Bool("json") { // the command's error names the first one
				writeMissing(p.err, k, some.Errors[k])
			}
		case r.found && len(keys) > 1:
			text.WriteString(k + "\t" + one + "\n")
		case r.found:
			text.WriteString(one + end)
		default:
			missing = cmp.Or(missing, errStatus1)
			if !c.Bool("json") {
				writeMissing(p.err, k, why)
			}
		}
	}
	if len(keys) == 1 {
		return cmp.Or(p.show(c, documents[0], text.String()), missing)
	}
	return cmp.Or(p.show(c, documents, text.String()), missing)
}

// lookUp returns the keys that have a value, and why others have none.
func lookUp(
	ctx context.Context, cl *client.Client, keys []string, o cachesidecar.GetOptions,
) (found map[string]cachesidecar.Item, why, err error) {
	if len(keys) > 1 {
		found, err = cl.GetMulti(ctx, keys, o)
		return found, cachesidecar.ErrNotFound, err
	}
	it, err := cl.Get(ctx, keys[0], o)
	if errors.Is(err, cachesidecar.ErrNotFound) { // it may say more
		return nil, err, nil
	}
	return map[string]cachesidecar.Item{keys[0]: it}, nil, err
}

// writeMissing reports a key that has no value, and why.
func writeMissing(out io.Writer, key string, why error) {
	fmt.Fprintf(out, "%s: %s\n", logs.Plain(key), logs.Lines(why.Error()))
}

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
	return withClient(c, func(ctx context.Context, cl *client.Client) error {
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
		if err != nil {
			return ofKey(key, err)
		}
		return p.show(c, stored{key, v}, "")
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

func (p *program) del(ctx context.Context, c *cli.Context, cl *client.Client) error {
	keys := c.Args().Slice()
	n, err := cl.DeleteMulti(ctx, keys, cachesidecar.DeleteOptions{
		AckAll: c.String("ack") == "all", Soft: c.Bool("soft"), CacheOnly: c.Bool("cache-only"),
		ReplicaLag: c.Duration("replica-lag"),
	})
	if err != nil {
		return err
	}
	var missing error
	if n == 0 {
		missing = errStatus1
	}
	if missing != nil && !c.Bool("json") {
		writeMissing(p.err, strings.Join(keys, ", "), cachesidecar.ErrNotFound)
	}
	return cmp.Or(p.show(c, map[string]any{"deleted": n}, ""), missing)
}

func (p *program) touch(ctx context.Context, c *cli.Context, cl *client.Client) (missing error) {
	o := writeOptions(c)
	for _, k := range c.Args().Slice() {
		switch err := cl.Touch(ctx, k, cachesidecar.TouchOptions{TTL: o.TTL, NoExpiry: o.NoExpiry}); {
		case errors.Is(err, cachesidecar.ErrNotFound):
			writeMissing(p.err, k, cachesidecar.ErrNotFound)
			missing = errStatus1
		case err != nil:
			return err
		}
	}
	return missing
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
	return withClient(c, func(ctx context.Context, cl *client.Client) error {
		sum, err := cl.Incr(ctx, key, delta, cachesidecar.IncrOptions{
			Create: c.IsSet("initial"), Initial: initial, TTL: o.TTL, NoExpiry: o.NoExpiry,
		})
		if err != nil {
			return ofKey(key, err)
		}
		return p.show(c, map[string]any{"key": key, "value": sum}, fmt.Sprintln(sum))
	})
}

// jsonTTL is a key in ttl's JSON.
type jsonTTL struct {
	Key   string `json:"key"`
	Found bool   `json:"found"`
	TTLMS int64  `json:"ttl_ms"` // remaining; 0: no expiry
	Error string `json:"error,omitempty"`
}

func (p *program) ttl(ctx context.Context, c *cli.Context, cl *client.Client) error {
	o := cachesidecar.GetOptions{NoLoad: true}
	return p.describeKeys(ctx, c, cl, o, "\n", func(it readKey) (any, string) {
		return jsonTTL{it.key, it.found, it.TTL.Milliseconds(), it.failed}, timeLeft(it.TTL)
	})
}

// timeLeft formats a remaining TTL as a time that --ttl accepts: in whole seconds, below one second in
// milliseconds.
func timeLeft(ttl time.Duration) string {
	unit := time.Second
	switch {
	case ttl == 0:
		return "no expiry"
	case ttl < time.Second:
		unit = time.Millisecond
	}
	return settings.TimeText(ttl.Truncate(unit))
}
