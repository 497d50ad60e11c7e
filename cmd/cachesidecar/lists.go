package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/table"
)

// listCommands are those that list keys and calls of this host.
func listCommands(p *program) []*cli.Command {
	limit := numberFlag("limit", "stop after this `NUMBER` of keys", 0, 1, 1<<31-1)
	limit.DefaultText = "no limit"
	return []*cli.Command{{
		Name:      "keys",
		Usage:     "list the keys that this host owns, with size and time to live",
		ArgsUsage: "[PREFIX]",
		Description: "A line has the key, the bytes of its value and the time left to live, with tabs between.\n" +
			"The keys come in no order. You need the right admin in the namespace.\n" +
			"Exit status 1 if there is none.",
		Flags: clientFlags(nsFlag, limit,
			boolFlag("count", "print only how many there are"),
			boolFlag("json", "print one JSON document a line"),
		),
		Action: withArgs(0, 1, p.list),
	}, {
		Name:  "hot",
		Usage: "list the keys that this host has read most in the last minute",
		Description: "The numbers are estimates from one read in 256, for this host's apps and for other hosts.\n" +
			"Reads of the shared memory and of near caches count as the apps report them.\n" +
			"It lists keys of the namespaces in which you have the right admin.\n" +
			"Exit status 1 if there is none.",
		Flags: clientFlags(
			&cli.StringFlag{Name: "ns", Usage: "only keys of this `NAMESPACE`", Action: notEmpty},
			numberFlag("n", "list at most `NUMBER` keys, up to 1000", 20, 1, 1000),
			jsonFlag,
		),
		Action: withArgsAndClient(0, 0, p.hot),
	}, {
		Name:  "slow",
		Usage: "list the slowest requests and loads of this host in the last ten minutes",
		Description: "It lists requests of apps and loads from origins that took 10 ms or more,\n" +
			"and what they waited for.\n" +
			"It lists calls in the namespaces in which you have the right admin.",
		Flags: clientFlags(
			&cli.StringFlag{Name: "ns", Usage: "only calls in this `NAMESPACE`", Action: notEmpty},
			numberFlag("n", "list at most `NUMBER` of each kind, up to 64", 20, 1, 64),
			boolFlag("requests", "only requests"),
			boolFlag("loads", "only loads"),
			jsonFlag,
		),
		Action: withArgsAndClient(0, 0, p.slow),
	}}
}

// jsonListed is a key in the JSON of keys.
type jsonListed struct {
	jsonKey
	Size    int64  `json:"size"`
	Memory  int64  `json:"memory"`
	TTLMS   int64  `json:"ttl_ms"`
	Version uint64 `json:"version,string"`
}

// list prints the keys as they come: there may be many. --timeout is for each request.
func (p *program) list(c *cli.Context) error {
	cl, err := connect(c.Context, c)
	if err != nil {
		return err
	}
	defer cl.Close()
	found := int64(0)
	o := cachesidecar.KeysOptions{Prefix: c.Args().First(), Page: 1000}
	for k, err := range cl.Keys(c.Context, o) {
		if err != nil {
			return explain(c, err)
		}
		found++
		switch {
		case c.Bool("count"):
		case c.Bool("json"):
			err = writeJSON(p.out, jsonListed{jsonKeyOf(k.Key), k.Size, k.Memory, k.TTLMS, k.Version}, "")
		default:
			left := timeLeft(millis(k.TTLMS))
			_, err = fmt.Fprintf(p.out, "%s\t%d\t%s\n", logs.Plain(k.Key), k.Size, left)
		}
		if err != nil {
			return err
		}
		if found == int64(c.Int("limit")) {
			break
		}
	}
	return p.listed(c, found)
}

// listed ends a list of keys with their number.
func (p *program) listed(c *cli.Context, found int64) error {
	if c.Bool("count") {
		document := map[string]int64{"keys": found}
		if c.Bool("json") {
			return writeJSON(p.out, document, "")
		}
		if _, err := fmt.Fprintln(p.out, found); err != nil {
			return err
		}
	}
	if found == 0 {
		return errStatus1
	}
	return nil
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
	cachesidecar.HotKeys
	Keys []jsonHotKey `json:"keys"`
}

type jsonHotKey struct {
	Namespace string `json:"ns"`
	jsonKey
	Reads int64   `json:"reads"`
	Share float64 `json:"share"`
}

func (p *program) hot(ctx context.Context, c *cli.Context, cl *client.Client) error {
	hot, err := cl.Hot(ctx, cachesidecar.HotOptions{Namespace: c.String("ns"), N: c.Int("n")})
	if err != nil {
		return err
	}
	document := jsonHot{hot, []jsonHotKey{}}
	for _, k := range hot.Keys {
		document.Keys = append(document.Keys, jsonHotKey{k.Namespace, jsonKeyOf(k.Key), k.Reads, k.Share})
	}
	err = p.show(c, document, hotText(&hot))
	if err == nil && len(hot.Keys) == 0 {
		fmt.Fprintf(p.err, "no key was seen among the reads of the last %v (one in 256 is looked at)\n",
			millis(hot.WindowMS).Round(time.Second))
		err = errStatus1
	}
	return err
}

// hotText has a table of the most read keys.
func hotText(hot *cachesidecar.HotKeys) string {
	if len(hot.Keys) == 0 {
		return ""
	}
	t := table.Rows{{"READS", "READS/S", "SHARE", "NAMESPACE", "KEY"}}
	for _, k := range hot.Keys {
		rate := float64(k.Reads) / max(float64(hot.WindowMS)/1000, 1)
		t.AddRow(k.Reads, int64(rate), table.Percent(k.Reads, hot.Reads), k.Namespace, k.Key)
	}
	return t.String()
}

// jsonSlow is slow's JSON.
type jsonSlow struct {
	cachesidecar.SlowCalls
	Requests []jsonSlowCall `json:"requests,omitzero"` // nil: not asked for
	Loads    []jsonSlowCall `json:"loads,omitzero"`
}

type jsonSlowCall struct {
	Began     time.Time `json:"began"`
	TookUS    int64     `json:"took_us"`
	Op        string    `json:"op"`
	Namespace string    `json:"ns"`
	jsonKey
	Hash   string                  `json:"hash"`
	Keys   int64                   `json:"keys"`
	Result string                  `json:"result"`
	Parts  []cachesidecar.SlowPart `json:"parts"`
}

func jsonSlowCalls(list []cachesidecar.SlowCall) []jsonSlowCall {
	if list == nil {
		return nil
	}
	out := make([]jsonSlowCall, len(list))
	for i, c := range list {
		out[i] = jsonSlowCall{
			c.Began, c.TookUS, c.Op, c.Namespace, jsonKeyOf(c.Key), c.Hash, c.Keys, c.Result, c.Parts,
		}
	}
	return out
}

func (p *program) slow(ctx context.Context, c *cli.Context, cl *client.Client) error {
	list, err := cl.Slow(ctx, cachesidecar.SlowOptions{Namespace: c.String("ns"), N: c.Int("n")})
	if err != nil {
		return err
	}
	if c.Bool("loads") && !c.Bool("requests") {
		list.Requests = nil
	}
	if c.Bool("requests") && !c.Bool("loads") {
		list.Loads = nil
	}
	document := jsonSlow{list, jsonSlowCalls(list.Requests), jsonSlowCalls(list.Loads)}
	all := append(list.Requests, list.Loads...)
	if len(all) == 0 && !c.Bool("json") {
		fmt.Fprintf(p.err, "none took %d ms or more in the last %s\n",
			list.ThresholdMS, timeLeft(millis(list.WindowMS)))
		return nil
	}
	return p.show(c, document, slowTable(all).String())
}

// slowTable has a line for each slow call.
func slowTable(all []cachesidecar.SlowCall) table.Rows {
	t := table.Rows{{"BEGAN", "TOOK", "OP", "RESULT", "NAMESPACE", "KEY", "WAITED FOR"}}
	for _, c := range all {
		key := cmp.Or(c.Key, "-")
		if c.Keys > 1 {
			key += fmt.Sprintf(" and %d more", c.Keys-1)
		}
		t.AddRow(c.Began.Local().Format(time.TimeOnly), took(c.TookUS), c.Op, c.Result, cmp.Or(c.Namespace, "-"), key,
			waits(c.Parts))
	}
	return t
}

// waits describes the parts of a call's time.
func waits(parts []cachesidecar.SlowPart) string {
	list := make([]string, len(parts))
	for i, p := range parts {
		what := p.What
		if p.Node != "" {
			what += " " + p.Node
		}
		list[i] = what + " " + took(p.TookUS).String()
	}
	return cmp.Or(strings.Join(list, ", "), "-")
}

// took formats a duration to a tenth of a millisecond.
func took(us int64) time.Duration { return micros(us).Round(100 * time.Microsecond) }
