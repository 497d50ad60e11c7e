package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar"
)

func ttlCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:      "ttl",
		Usage:     "print how long a key has to live, or several",
		ArgsUsage: "KEY…",
		Description: "It changes nothing, and never asks the origin.\n" +
			"Of several keys, each found one gives a line: the key, a tab, the time.\n" +
			"Exit status 1 if a key has no value.",
		Flags:  clientFlags(nsFlag, jsonFlag),
		Action: counted(1, -1, p.ttl),
	}
}

// jsonTTL is a key in ttl's JSON.
type jsonTTL struct {
	Key   string `json:"key"`
	Found bool   `json:"found"`
	TTLMS int64  `json:"ttl_ms"` // remaining; 0: no expiry
}

func (p *program) ttl(c *cli.Context) error {
	describe := func(key string, it cachesidecar.Item, found bool) jsonTTL {
		return jsonTTL{key, found, it.TTL.Milliseconds()}
	}
	return describeKeys(p, c, cachesidecar.GetOptions{NoLoad: true}, describe, ttlText)
}

// ttlText has the time of one key, or a line for each key that has a value.
func ttlText(keys []string, found map[string]cachesidecar.Item) string {
	var text strings.Builder
	for _, k := range keys {
		switch it, ok := found[k]; {
		case ok && len(keys) > 1:
			fmt.Fprintf(&text, "%s\t%s\n", k, timeLeft(it.TTL))
		case ok:
			return timeLeft(it.TTL) + "\n"
		}
	}
	return text.String()
}

// timeLeft formats a remaining TTL as a time that --ttl accepts: in milliseconds below a
// second, else in seconds, minutes, hours and days.
func timeLeft(ttl time.Duration) string {
	switch {
	case ttl == 0:
		return "no expiry"
	case ttl < time.Second:
		return ttl.Truncate(time.Millisecond).String()
	}
	var text strings.Builder
	for _, u := range []struct {
		unit string
		is   time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}} {
		if n := ttl / u.is; n > 0 {
			fmt.Fprintf(&text, "%d%s", n, u.unit)
			ttl -= n * u.is
		}
	}
	return text.String()
}
