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
)

func slowCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:  "slow",
		Usage: "list the slowest requests and loads of this host in the last ten minutes",
		Description: "It lists requests of apps and loads from origins that took 10 ms or more,\n" +
			"and what they waited for.\n" +
			"It lists calls in the namespaces in which you have the right admin.",
		Flags: clientFlags(
			&cli.StringFlag{Name: "ns", Usage: "only calls in this `NAMESPACE`", Action: named},
			numberFlag("n", "list at most `NUMBER` of each kind, up to 64", 20, 1, 64),
			boolFlag("requests", "only requests"),
			boolFlag("loads", "only loads"),
			jsonFlag,
		),
		Action: counted(0, 0, p.slow),
	}
}

// jsonSlow is slow's JSON.
type jsonSlow struct {
	ThresholdMS int64          `json:"threshold_ms"`
	WindowMS    int64          `json:"window_ms"`
	Requests    []jsonSlowCall `json:"requests,omitzero"` // nil: not asked for
	Loads       []jsonSlowCall `json:"loads,omitzero"`
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

func (p *program) slow(c *cli.Context) error {
	o := cachesidecar.SlowOptions{Namespace: c.String("ns"), N: c.Int("n")}
	return ask(c, func(ctx context.Context, cl *client.Client) error {
		list, err := cl.Slow(ctx, o)
		if err != nil {
			return err
		}
		if c.Bool("loads") && !c.Bool("requests") {
			list.Requests = nil
		}
		if c.Bool("requests") && !c.Bool("loads") {
			list.Loads = nil
		}
		document := jsonSlow{
			list.ThresholdMS, list.WindowMS, jsonSlowCalls(list.Requests), jsonSlowCalls(list.Loads),
		}
		all := append(list.Requests, list.Loads...)
		if len(all) == 0 && !c.Bool("json") {
			fmt.Fprintf(p.err, "none took %d ms or more in the last %s\n",
				list.ThresholdMS, timeLeft(millis(list.WindowMS)))
			return nil
		}
		return p.show(c, document, slowTable(all).String())
	})
}

// slowTable has a line for each slow call.
func slowTable(all []cachesidecar.SlowCall) table {
	t := table{{"BEGAN", "TOOK", "OP", "RESULT", "NAMESPACE", "KEY", "WAITED FOR"}}
	for _, c := range shown(all) {
		key := cmp.Or(c.Key, "-")
		if c.Keys > 1 {
			key += fmt.Sprintf(" and %d more", c.Keys-1)
		}
		t.row(c.Began.Local().Format(time.TimeOnly), took(c.TookUS), c.Op, c.Result, cmp.Or(c.Namespace, "-"), key,
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
