package main

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/logs"
)

func (p *program) getCommand() *cli.Command {
	return &cli.Command{
		Name:      "get",
		Usage:     "print a key's value, or several",
		ArgsUsage: "KEY…",
		Description: "The value of one key is written as it is, with a newline after it on a terminal only.\n" +
			"Of several keys, each found one gives a line: the key, a tab, the value.\n" +
			"Exit status 1 if a key has no value.",
		Flags: clientFlags(nsFlag, jsonFlag,
			&cli.BoolFlag{Name: "fresh", Usage: "ask the host that owns the key, take no copy", DisableDefaultText: true},
			&cli.BoolFlag{Name: "stale-ok", Usage: "a value that was softly deleted is better than none", DisableDefaultText: true},
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
	Version uint64  `json:"version"`
	TTLMS   int64   `json:"ttl_ms"` // remaining; 0: no expiry
	Source  string  `json:"source,omitempty"`
	AgeMS   int64   `json:"age_ms"`
	Stale   bool    `json:"stale,omitempty"` // softly deleted, AgeMS ago
}

// jsonItemOf describes a key that was found.
func jsonItemOf(key string, it cachesidecar.Item) jsonItem {
	j := jsonItem{
		Key: key, Found: true, Flags: it.Flags, Version: it.Version,
		TTLMS: it.TTL.Milliseconds(), Source: it.Source, AgeMS: it.Age.Milliseconds(), Stale: it.Stale,
	}
	if s := string(it.Value); utf8.ValidString(s) {
		j.Value = &s
	} else {
		s = base64.StdEncoding.EncodeToString(it.Value)
		j.Base64 = &s
	}
	return j
}

func (p *program) get(c *cli.Context) error {
	keys := c.Args().Slice()
	o := cachesidecar.GetOptions{Fresh: c.Bool("fresh"), StaleOK: c.Bool("stale-ok")}
	return ask(c, func(ctx context.Context, cl *client.Client) error {
		if len(keys) == 1 {
			return p.getOne(ctx, c, cl, keys[0], o)
		}
		return p.getSeveral(ctx, c, cl, keys, o)
	})
}

func (p *program) getOne(ctx context.Context, c *cli.Context, cl *client.Client, key string, o cachesidecar.GetOptions) error {
	it, err := cl.Get(ctx, key, o)
	switch {
	case err == nil:
		return p.show(c, jsonItemOf(key, it), func(out io.Writer) error {
			if isTerminal(out) {
				it.Value = append(it.Value, '\n')
			}
			_, err := out.Write(it.Value)
			return err
		})
	case !errors.Is(err, cachesidecar.ErrNotFound):
		return err
	case c.Bool("json"):
		return cmp.Or(p.json(jsonItem{Key: key}), errMiss)
	}
	p.missing(key, err)
	return errMiss
}

func (p *program) getSeveral(ctx context.Context, c *cli.Context, cl *client.Client, keys []string, o cachesidecar.GetOptions) error {
	found, err := cl.GetMulti(ctx, keys, o)
	if err != nil {
		return err
	}
	var missing error
	items := make([]jsonItem, len(keys))
	for i, k := range keys {
		it, ok := found[k]
		if ok {
			items[i] = jsonItemOf(k, it)
		} else {
			items[i] = jsonItem{Key: k}
			missing = errMiss
		}
	}
	return cmp.Or(p.show(c, items, func(out io.Writer) error {
		for _, k := range keys {
			it, ok := found[k]
			if !ok {
				p.missing(k, cachesidecar.ErrNotFound)
			} else if _, err := fmt.Fprintf(out, "%s\t%s\n", k, it.Value); err != nil {
				return err
			}
		}
		return nil
	}), missing)
}

// missing reports a key that has no value, and why.
func (p *program) missing(key string, why error) {
	fmt.Fprintf(p.err, "%s: %s\n", logs.Plain(key), logs.Lines(why.Error()))
}
