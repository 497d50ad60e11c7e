package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

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
	Value   *string `json:"value,omitempty"`        // if it is UTF-8
	Base64  *string `json:"value_base64,omitempty"` // if it is not UTF-8
	Flags   uint32  `json:"flags"`
	Version uint64  `json:"version"`
	TTLMS   int64   `json:"ttl_ms"` // remaining; 0: no expiry
	Source  string  `json:"source,omitempty"`
	AgeMS   int64   `json:"age_ms"`
	Stale   bool    `json:"stale,omitempty"` // softly deleted, AgeMS ago
}

func (p *program) get(ctx context.Context, c *cli.Context, cl *client.Client) error {
	o := client.GetOptions{Fresh: c.Bool("fresh"), StaleOK: c.Bool("stale-ok")}
	keys := c.Args().Slice()
	found := map[string]client.Item{}
	why := client.ErrNotFound // for a single key
	if len(keys) == 1 {
		it, err := cl.Get(ctx, keys[0], o)
		if err == nil {
			found[keys[0]] = it
		} else if why = err; !errors.Is(err, client.ErrNotFound) {
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
		items[i] = jsonItem{Key: k, Found: ok, Flags: it.Flags, Version: it.Version, TTLMS: it.TTL.Milliseconds(), Source: it.Source, AgeMS: it.Age.Milliseconds(), Stale: it.Stale}
		switch {
		case !ok:
			missing = errMiss
			if !c.Bool("json") {
				fmt.Fprintf(p.err, "%s: %s\n", logs.Plain(k), logs.Lines(why.Error()))
			}
		case c.Bool("json"):
			if s := string(it.Value); utf8.ValidString(s) {
				items[i].Value = &s
			} else {
				s = base64.StdEncoding.EncodeToString(it.Value)
				items[i].Base64 = &s
			}
		case len(keys) > 1:
			if _, err := fmt.Fprintf(p.out, "%s\t%s\n", k, it.Value); err != nil {
				return err
			}
		default:
			end := ""
			if isTerminal(p.out) {
				end = "\n"
			}
			if _, err := p.out.Write(append(it.Value, end...)); err != nil {
				return err
			}
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

func (p *program) json(v any) error { return p.encode(v, "  ") }

// encode writes a JSON document in which a terminal shows every character.
func (p *program) encode(v any, indent string) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetIndent("", indent)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := p.out.Write(logs.JSON(text.Bytes()))
	return err
}
