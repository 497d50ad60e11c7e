package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
)

func healthCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:        "health",
		Usage:       "say whether the sidecar serves, and what is wrong",
		Description: "Exit status 0 if it serves, 1 if it is up and not ready, 3 if it cannot be reached.",
		Flags:       clientFlags(jsonFlag),
		Action:      withArgs(0, 0, p.health),
	}
}

// health is the answer to health, and its JSON.
type health struct {
	Node     string   `json:"node"`     // "" if it did not answer
	State    string   `json:"state"`    // serving, not_well or not_ready
	Findings []string `json:"findings"` // what is wrong
}

// states are the words of a health's line, and of its JSON.
var states = map[string]string{
	telemetry.Serving: "serving", telemetry.NotWell: "not_well", telemetry.NotReady: "not_ready",
}

func (p *program) health(c *cli.Context) error {
	path, err := findSocket(c)
	if err != nil {
		return err
	}
	var st cachesidecar.Stats
	err = withClient(c, func(ctx context.Context, cl *client.Client) (err error) {
		st, err = cl.Stats(ctx)
		return err
	})
	switch {
	case timedOut(err):
		// %v, so that the exit status is not that of a timeout
		return p.showHealth(c, "", telemetry.NotReady, fmt.Sprintf("it is up and does not answer: %v", err))
	case errors.Is(err, cachesidecar.ErrUnavailable) && takesConnections(c.Context, path) == nil:
		return p.showHealth(c, "", telemetry.NotWell, "it refuses this connection: all connections of the socket are "+
			"taken, or it is about to end")
	case err != nil:
		return err
	}
	word, why := telemetry.ConditionOf(&st)
	return p.showHealth(c, st.Node, word, why...)
}

// showHealth prints a state. It returns an error if the host is not ready.
func (p *program) showHealth(c *cli.Context, node, word string, why ...string) error {
	line := word
	if len(why) > 0 {
		line += ": " + telemetry.AtMost(why, telemetry.FewFindings, "; ")
	}
	switch line = logs.Plain(line); {
	case c.Bool("json"):
		err := writeJSON(p.out, health{Node: node, State: states[word], Findings: append([]string{}, why...)}, "  ")
		if err == nil && word == telemetry.NotReady {
			err = errStatus1
		}
		return err
	case word == telemetry.NotReady:
		return errors.New(line)
	}
	_, err := fmt.Fprintln(p.out, line)
	return err
}
