package main

import (
	"cmp"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/table"
)

func watchCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:        "watch",
		Usage:       "print what changes, as this host hears of it",
		ArgsUsage:   "[KEY…]",
		Description: "Without keys it prints every change, until it is interrupted.",
		Flags: clientFlags(
			&cli.StringFlag{
				Name: "ns",
				Usage: "the keys' `NAMESPACE`; without keys: leave out flushes of other namespaces " +
					"(default: \"default\", and all flushes)",
				Action: notEmpty,
			},
			boolFlag("json", "print one JSON document a line"),
		),
		Action: p.watch,
	}
}

// watch prints events until it is interrupted. It survives a restart of the sidecar, but
// ends if the first attempt fails.
func (p *program) watch(c *cli.Context) error {
	cl, err := connect(c.Context, c)
	if err != nil {
		return err
	}
	defer cl.Close()
	o := client.WatchOptions{Keys: c.Args().Slice(), All: !c.IsSet("ns") && c.NArg() == 0}
	begun := false
	for e, err := range cl.Watch(c.Context, o) {
		switch {
		case err != nil && !begun:
			return explain(c, err)
		case err != nil:
			fmt.Fprintln(p.err, "cachesidecar:", logs.Lines(err.Error()))
		case e.Kind == client.Beat:
		default:
			if err := writeEvent(p.out, e, c.Bool("json")); err != nil {
				return err
			}
		}
		begun = true
	}
	return nil
}

// watched is an event in the JSON of watch.
type watched struct {
	Time       string `json:"time"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Key        string `json:"key,omitempty"`
	Hash       string `json:"hash,omitempty"`
	Version    uint64 `json:"version,omitempty,string"`
	Partitions int    `json:"partitions,omitempty"`
}

// writeEvent prints one line.
func writeEvent(out io.Writer, e client.Event, asJSON bool) error {
	w := watched{
		Time: time.Now().Format("2006-01-02T15:04:05.000Z07:00"), Kind: e.Kind.String(),
		Namespace: e.Namespace, Key: e.Key,
		Version: e.Version, Partitions: len(e.Partitions),
	}
	if e.Kind == client.Changed {
		w.Hash = fmt.Sprintf("%016x", e.Hash)
	}
	if asJSON {
		return writeJSON(out, w, "")
	}
	line := w.Time + "  " + w.Kind
	switch e.Kind {
	case client.Changed:
		line += sanitizedf("  %s  %s  %d", cmp.Or(w.Key, "-"), w.Hash, w.Version)
	case client.Flushed:
		line += sanitizedf("  %s  -  %d", cmp.Or(w.Namespace, "every namespace"), w.Version)
	case client.Raised:
		line += fmt.Sprintf("  %s of %s partitions  -  %d", table.Count(int64(w.Partitions)),
			table.Count(kv.Partitions),
			w.Version)
	}
	_, err := fmt.Fprintln(out, line)
	return err
}
