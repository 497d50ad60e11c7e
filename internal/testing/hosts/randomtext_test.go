package hosts

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Apps of a random run that speak memcached's protocol. Their host's network has no faults on the
// way to their own sidecar.

// memcachedAddress is the setting of hosts with an endpoint. It listens on the network in memory.
const memcachedAddress = "127.0.0.1:11211"

// textPatience is longer than a process takes to answer while its clock runs.
const textPatience = 5 * time.Second

// textLink is a connection to an endpoint. One app uses it at a time.
type textLink struct {
	net.Conn
	r *bufio.Reader
}

// talk sends a command, and returns what the same request has for an answer over the socket's
// protocol; TIMEOUT: there was no answer.
func (a *app) talk(format string, args ...any) wire.Reply {
	c, err := a.connect()
	if err != nil {
		return wire.Reply{Status: wire.Timeout}
	}
	r, err := c.command(fmt.Sprintf(format, args...))
	if err != nil {
		c.Close()
		return wire.Reply{Status: wire.Timeout}
	}
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	if a.v.s == a.s {
		a.v.links = append(a.v.links, c)
	} else {
		c.Close()
	}
	return r
}

// connect returns an idle connection, or another one.
func (a *app) connect() (*textLink, error) {
	a.w.mu.Lock()
	if n := len(a.v.links); n > 0 && a.v.s == a.s {
		defer a.w.mu.Unlock()
		c := a.v.links[n-1]
		a.v.links = a.v.links[:n-1]
		return c, nil
	}
	a.w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), textPatience)
	defer cancel()
	nc, err := a.host.Dial(ctx, a.s.door)
	if err != nil {
		return nil, err
	}
	return &textLink{nc, bufio.NewReader(nc)}, nil
}

// command sends a command and reads its answer, of one key.
func (c *textLink) command(command string) (r wire.Reply, err error) {
	_ = c.SetDeadline(time.Now().Add(textPatience))
	if _, err = io.WriteString(c, command+"\r\n"); err != nil {
		return r, err
	}
	line, err := c.r.ReadString('\n')
	words := strings.Fields(line)
	if err != nil || len(words) == 0 {
		return r, fmt.Errorf("the answer %q: %w", line, err)
	}
	if size := map[string]int{"VALUE": 3, "VA": 1}[words[0]]; size > 0 {
		n, err := strconv.Atoi(words[size])
		if err != nil {
			return r, err
		}
		value := make([]byte, n+len("\r\n"))
		if _, err := io.ReadFull(c.r, value); err != nil {
			return r, err
		}
		if r.Value = value[:n]; words[0] == "VALUE" {
			if line, err := c.r.ReadString('\n'); err != nil || line != "END\r\n" {
				return r, fmt.Errorf("the end %q: %v", line, err)
			}
		}
	}
	textReply(&r, line, words)
	return r, nil
}

// textStatuses are the statuses of answers by their first word, or by the second of SERVER_ERROR.
var textStatuses = map[string]wire.Status{
	"STORED": wire.OK, "HD": wire.OK, "DELETED": wire.OK, "TOUCHED": wire.OK, "VALUE": wire.OK, "VA": wire.OK,
	"NOT_FOUND": wire.Miss, "NF": wire.Miss, "END": wire.Miss, "EN": wire.Miss,
	"EXISTS": wire.Exists, "EX": wire.Exists, "NOT_STORED": wire.NotStored, "NS": wire.NotStored,
	"UNAVAILABLE:": wire.Unavailable, "BUSY:": wire.Busy, "TIMEOUT:": wire.Timeout, "ORIGIN:": wire.Origin,
}

// textReply reads the status, the version and the claim out of a line.
func textReply(r *wire.Reply, line string, words []string) {
	first := words[0]
	if first == "SERVER_ERROR" {
		first = words[1]
	}
	status, known := textStatuses[first]
	if r.Status = status; !known {
		r.Status, r.Message = wire.BadRequest, []byte(line)
	}
	switch {
	case first == "VALUE" && len(words) > 4:
		r.Version, _ = strconv.ParseUint(words[4], 10, 64)
	case first != "VA":
		return
	case len(r.Value) == 0: // the place of a value that is to be loaded
		r.Status = wire.Miss
	}
	for _, flag := range words[2:] {
		switch flag[0] {
		case 'X':
			r.Status = wire.Stale
		case 'W':
			r.Claim = wire.ClaimWon
		case 'Z':
			r.Claim = wire.ClaimTaken
		case 'c':
			r.Version, _ = strconv.ParseUint(flag[1:], 10, 64)
			r.Number = int64(r.Version)
		}
	}
}
