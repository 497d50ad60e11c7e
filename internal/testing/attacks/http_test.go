package attacks

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

const ofFiles = "HTTP's bounds; descriptors reserved for the socket"

var httpAttacks = []attack{
	{
		name:  "HTTP: idle connections",
		tries: "2,000 connections that send nothing, to a process of 1,024 descriptors",
		bound: ofFiles,
		files: 1024, also: []also{connects, probes},
		run: func(ctx context.Context, j *job) error { return holdHTTP(ctx, j, "") },
	},
	{
		name:  "HTTP: half headers",
		tries: "2,000 connections that send the beginning of a header",
		bound: ofFiles,
		files: 1024, also: []also{connects, probes},
		run: func(ctx context.Context, j *job) error { return holdHTTP(ctx, j, "GET /livez HTTP/1.1\r\nHost: ") },
	},
	{
		name:  "HTTP: announced bodies",
		tries: "2,000 connections that announce a body and do not send it",
		bound: ofFiles,
		files: 1024, also: []also{connects, probes},
		run: func(ctx context.Context, j *job) error {
			return holdHTTP(ctx, j, "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n")
		},
	},
	{
		name:  "HTTP: kept connections",
		tries: "2,000 connections that are kept after a whole request",
		bound: ofFiles,
		files: 1024, also: []also{connects, probes},
		run: func(ctx context.Context, j *job) error {
			return holdHTTP(ctx, j, "GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
		},
	},
	{
		name:  "HTTP: metrics",
		tries: "16 connections that ask for /metrics without a pause",
		bound: ofFiles,
		also:  []also{connects},
		run: func(ctx context.Context, j *job) error {
			c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
			j.crowd(ctx, 16, func(int) error {
				r, err := c.Get("http://" + j.victim().HTTP + "/metrics")
				if err != nil {
					return err
				}
				defer r.Body.Close()
				j.count.Add(1)
				_, err = bufio.NewReader(r.Body).Discard(64 << 20)
				if r.StatusCode != http.StatusOK {
					return errors.New(r.Status)
				}
				return err
			})
			return nil
		},
	},
}

// holdHTTP keeps 2,000 connections to the HTTP port open.
func holdHTTP(ctx context.Context, j *job, sent string) error {
	return holdAt(ctx, j, j.victim().HTTP, sent)
}

// holdAt keeps 2,000 connections to a port open, each after sending sent. Closed
// connections are opened again later.
func holdAt(ctx context.Context, j *job, address, sent string) error {
	j.crowd(ctx, 2000, func(int) error {
		c, err := dial(ctx, "tcp", address, time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		j.count.Add(1)
		if _, err := c.Write([]byte(sent)); err != nil {
			return err
		}
		go func() { <-ctx.Done(); _ = c.Close() }()
		discard(c)
		rest(ctx, time.Second)
		return nil
	})
	return nil
}

// fewLines checks that a log has at most 10 lines a second of one cause, and some others.
func fewLines(h *house, r report) error {
	text, err := os.ReadFile(h.hosts[0].log)
	if err != nil {
		return err
	}
	first, last, n := "", "", 0
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, `"time":"`) {
			if first == "" {
				first = line
			}
			last = line
			n++
		}
	}
	took := stamp(last).Sub(stamp(first)).Seconds()
	if most := 50 + int(10*took); n > most {
		return fmt.Errorf("%d lines in %.1f s, want at most %d", n, took, most)
	}
	return nil
}

// stillLogs checks that, and that the log has the line of an origin that fails.
func stillLogs(h *house, r report) error {
	if err := fewLines(h, r); err != nil {
		return err
	}
	ctx, end := testenv.Background()
	defer end()
	c, err := open(ctx, h.hosts[0].Socket, testenv.Patience)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.call(wire.OpGet, 10_000, "down", []byte("k")); err != nil {
		return err
	}
	for ctx.Err() == nil {
		text, err := os.ReadFile(h.hosts[0].log)
		if err != nil || bytes.Contains(text, []byte("a load failed")) {
			return err
		}
		rest(ctx, 100*time.Millisecond)
	}
	return errors.New("the log has no line of the origin")
}

// stamp returns the time of a line of the log.
func stamp(line string) time.Time {
	_, rest, _ := strings.Cut(line, `"time":"`)
	text, _, _ := strings.Cut(rest, `"`)
	t, _ := time.Parse(time.RFC3339Nano, text)
	return t
}
