package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// errStory means that something is not as the demo says.
var errStory = errors.New("not as it should be")

func storyErrorf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errStory, fmt.Errorf(format, args...))
}

// story is a run of the demo. Its steps act on the hosts, check the results and report
// them.
type story struct {
	*demoHosts
	out             io.Writer
	one, two, three *demoHost

	begun  time.Time
	owner  map[string]string // of each key, at the beginning
	err    error             // of writes to the output
	killed time.Time
}

// not returns an error for something that is not as it should be, with the hosts' logs.
func (s *story) not(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !errors.Is(err, errStory) {
		err = storyErrorf("%w", err)
	}
	if s.demoHosts == nil {
		return err
	}
	logs, hint := s.logs(), ""
	if strings.Contains(logs, "process did not run for ") {
		hint = "\nThis machine stood still for longer than max_staleness, so the sidecars gave up their ownership: " +
			"try again when it is less busy."
	}
	return fmt.Errorf("%w%s\n%s", err, hint, logs)
}

// tell writes a line with the time since the beginning. aside writes a line that belongs
// to the previous one.
func (s *story) tell(format string, args ...any) {
	s.line("%6.2f s  %s", time.Since(s.begun).Seconds(), fmt.Sprintf(format, args...))
}

func (s *story) aside(format string, args ...any) { s.line("          "+format, args...) }

func (s *story) line(format string, args ...any) {
	if _, err := fmt.Fprintf(s.out, format+"\n", args...); err != nil && s.err == nil {
		s.err = err
	}
}

// demoPatience is how long a step waits for an event, on a machine that may be busy.
const demoPatience = 20 * time.Second

// until waits until ok returns nil, and returns how long that took.
func (s *story) until(ctx context.Context, what string, ok func(context.Context) error) (took time.Duration,
	err error) {
	begun := time.Now()
	for {
		last := ok(ctx)
		switch took := time.Since(begun); {
		case last == nil:
			return took, nil
		case took > demoPatience:
			return took, storyErrorf("%s, after %v: %w", what, round(took), last)
		}
		for _, h := range s.list {
			if h.hasEnded() && !h.ending {
				return 0, storyErrorf("%s: %s has ended", what, h.name)
			}
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// settled returns nil if the hosts see exactly each other as in, own all partitions
// together, and no handoff is under way.
func settled(ctx context.Context, hosts ...*demoHost) error {
	owned := 0
	for _, h := range hosts {
		list, err := h.Members(ctx)
		if err != nil {
			return err
		}
		in := 0
		for _, m := range list {
			if m.State == "in" {
				in++
			}
		}
		st, err := h.Stats(ctx)
		if err != nil {
			return err
		}
		if in != len(hosts) || st.Cluster.Handoff.Pulling > 0 {
			return fmt.Errorf("%s sees %d hosts in, and %d handoffs are under way", h.name, in,
				st.Cluster.Handoff.Pulling)
		}
		owned += st.Cluster.Owned
	}
	if owned != partitions {
		return fmt.Errorf("%d of %d partitions are owned", owned, partitions)
	}
	return nil
}

// round rounds a time so that it is short enough to read.
func round(d time.Duration) time.Duration {
	switch {
	case d > time.Second:
		return d.Round(10 * time.Millisecond)
	case d > 10*time.Millisecond:
		return d.Round(time.Millisecond)
	}
	return d.Round(time.Microsecond)
}
