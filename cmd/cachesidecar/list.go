package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/logs"
)

func keysCommand(p *program) *cli.Command {
	limit := numberFlag("limit", "stop after this `NUMBER` of keys", 0, 1, 1<<31-1)
	limit.DefaultText = "no limit"
	return &cli.Command{
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
		Action: counted(0, 1, p.list),
	}
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
		return errMiss
	}
	return nil
}
