package main

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/logs"
)

func hotCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:  "hot",
		Usage: "list the keys that this host has read most in the last minute",
		Description: "The numbers are estimates from one read in 256, for this host's apps and for other hosts.\n" +
			"Reads of the shared memory and of near caches count as the apps report them.\n" +
			"It lists keys of the namespaces in which you have the right admin.\n" +
			"Exit status 1 if there is none.",
		Flags: clientFlags(
			&cli.StringFlag{Name: "ns", Usage: "only keys of this `NAMESPACE`", Action: named},
			numberFlag("n", "list at most `NUMBER` keys, up to 1000", 20, 1, 1000),
			jsonFlag,
		),
		Action: counted(0, 0, p.hot),
	}
}

// jsonKey is a key in JSON.
type jsonKey struct {
	Key    *string `json:"key,omitempty"`        // if it is UTF-8
	Base64 *string `json:"key_base64,omitempty"` // if it is not UTF-8
}

func jsonKeyOf(key string) (j jsonKey) {
	j.Key, j.Base64 = textOrBase64(key)
	return j
}

// jsonHot is hot's JSON.
type jsonHot struct {
	WindowMS int64        `json:"window_ms"`
	Reads    int64        `json:"reads"`
	Keys     []jsonHotKey `json:"keys"`
}

type jsonHotKey struct {
	Namespace string `json:"ns"`
	jsonKey
	Reads int64   `json:"reads"`
	Share float64 `json:"share"`
}

func (p *program) hot(c *cli.Context) error {
	o := cachesidecar.HotOptions{Namespace: c.String("ns"), N: c.Int("n")}
	return ask(c, func(ctx context.Context, cl *client.Client) error {
		hot, err := cl.Hot(ctx, o)
		if err != nil {
			return err
		}
		document := jsonHot{WindowMS: hot.WindowMS, Reads: hot.Reads, Keys: []jsonHotKey{}}
		for _, k := range hot.Keys {
			document.Keys = append(document.Keys, jsonHotKey{k.Namespace, jsonKeyOf(k.Key), k.Reads, k.Share})
		}
		err = p.show(c, document, hotText(&hot))
		if err == nil && len(hot.Keys) == 0 {
			fmt.Fprintf(p.err, "no key was seen among the reads of the last %v (one in 256 is looked at)\n",
				millis(hot.WindowMS).Round(time.Second))
			err = errMiss
		}
		return err
	})
}

// hotText has a table of the most read keys.
func hotText(hot *cachesidecar.HotKeys) string {
	if len(hot.Keys) == 0 {
		return ""
	}
	t := table{{"READS", "READS/S", "SHARE", "NAMESPACE", "KEY"}}
	for _, k := range hot.Keys {
		rate := float64(k.Reads) / max(float64(hot.WindowMS)/1000, 1)
		t.row(k.Reads, int64(rate), percent(k.Reads, hot.Reads), k.Namespace, logs.Plain(k.Key))
	}
	return t.String()
}
