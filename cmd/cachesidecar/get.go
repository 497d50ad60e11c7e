package main

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/logs"
)

func getCommand(p *program) *cli.Command {
	return &cli.Command{
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
		Action: counted(1, -1, p.get),
	}
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
}

// jsonItemOf describes a key.
func jsonItemOf(key string, it cachesidecar.Item, found bool) jsonItem {
	if !found {
		return jsonItem{Key: key}
	}
	j := jsonItem{
		Key: key, Found: true, Flags: it.Flags, Version: it.Version,
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

func (p *program) get(c *cli.Context) error {
	o := cachesidecar.GetOptions{Fresh: c.Bool("fresh"), StaleOK: c.Bool("stale-ok")}
	return describeKeys(p, c, o, jsonItemOf, p.values)
}

// describeKeys reads the keys of the arguments, and prints documents that describe them, or their text.
func describeKeys[T any](
	p *program, c *cli.Context, o cachesidecar.GetOptions, describe func(string, cachesidecar.Item, bool) T,
	text func(keys []string, found map[string]cachesidecar.Item) string,
) error {
	keys := c.Args().Slice()
	return ask(c, func(ctx context.Context, cl *client.Client) error {
		found, why, err := lookUp(ctx, cl, keys, o)
		if err != nil {
			return err
		}
		var missing error
		items := make([]T, len(keys))
		for i, k := range keys {
			it, ok := found[k]
			if items[i] = describe(k, it, ok); ok {
				continue
			}
			missing = errMiss
			if !c.Bool("json") {
				writeMissing(p.err, k, why)
			}
		}
		var document any = items
		if len(keys) == 1 {
			document = items[0]
		}
		return cmp.Or(p.show(c, document, text(keys, found)), missing)
	})
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

// values returns the value of one key, or a line for each key that has a value.
func (p *program) values(keys []string, found map[string]cachesidecar.Item) string {
	var text strings.Builder
	for _, k := range keys {
		it, ok := found[k]
		switch {
		case ok && len(keys) > 1:
			fmt.Fprintf(&text, "%s\t%s\n", k, it.Value)
		case ok && isTerminal(p.out):
			return string(it.Value) + "\n"
		case ok:
			return string(it.Value)
		}
	}
	return text.String()
}

// writeMissing reports a key that has no value, and why.
func writeMissing(out io.Writer, key string, why error) {
	fmt.Fprintf(out, "%s: %s\n", logs.Plain(key), logs.Lines(why.Error()))
}
