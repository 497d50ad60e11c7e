package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cachesidecar/cachesidecar"
)

const demoKeys = 300

func demoKey(i int) string { return fmt.Sprintf("key%03d", i) }

// demoValue returns a key's value: the key and how often it was written.
func demoValue(key string, time int) []byte { return fmt.Appendf(nil, "%s, written %d", key, time) }

// read reads a key, and returns the source of its value; "" if the key has none. A value
// of another key is an error.
func (h *demoHost) read(
	ctx context.Context, key string, o cachesidecar.GetOptions,
) (source string, took time.Duration, value []byte, err error) {
	begun := time.Now()
	it, err := h.Get(ctx, key, o)
	took = time.Since(begun)
	switch {
	case errors.Is(err, cachesidecar.ErrNotFound):
		return "", took, nil, nil
	case err != nil:
		return "", took, nil, fmt.Errorf("a read of %s through %s: %w", key, h.name, err)
	case !bytes.HasPrefix(it.Value, []byte(key+",")):
		return "", took, nil, storyErrorf("%s, read through %s, is %q", key, h.name, it.Value)
	}
	return it.Source, took, it.Value, nil
}

func (s *story) join(ctx context.Context) error {
	s.tell("they serve: pids %d, %d and %d, sockets in %s",
		s.one.cmd.Process.Pid, s.two.cmd.Process.Pid, s.three.cmd.Process.Pid, s.dir)
	joined := func(ctx context.Context) error { return settled(ctx, s.list...) }
	if _, err := s.until(ctx, "they have not found each other", joined); err != nil {
		return err
	}
	s.tell("they have found each other, and share the keys among them:")
	return s.members(ctx)
}

// members shows the members as host one sees them.
func (s *story) members(ctx context.Context) error {
	list, err := s.one.Members(ctx)
	if err != nil {
		return err
	}
	var b strings.Builder
	if err := writeMembers(&b, list); err != nil {
		return err
	}
	for line := range strings.Lines(b.String()) {
		s.aside("%s", strings.TrimSuffix(line, "\n"))
	}
	return nil
}

// write sets all keys through host one, and asks for the owner of each key.
func (s *story) write(ctx context.Context) error {
	begun := time.Now()
	for i := range demoKeys {
		if _, err := s.one.Set(ctx, demoKey(i), demoValue(demoKey(i), 1), cachesidecar.SetOptions{}); err != nil {
			return storyErrorf("a write of %s through one: %w", demoKey(i), err)
		}
	}
	each := time.Since(begun) / demoKeys
	for i := range demoKeys {
		place, err := s.one.Ring(ctx, demoKey(i))
		if err != nil {
			return err
		}
		s.owner[demoKey(i)] = place.Owner
	}
	own, twos, threes := len(s.keysOf("one")), len(s.keysOf("two")), len(s.keysOf("three"))
	s.tell("set %d keys through one, %v each: %d are its own, %d go to two, %d to three",
		demoKeys, round(each), own, twos, threes)
	if own == 0 || twos == 0 || threes == 0 {
		return storyErrorf("one host owns no key")
	}
	return nil
}

// keysOf returns the keys that a host owned at the beginning.
func (s *story) keysOf(owner string) (keys []string) {
	for i := range demoKeys {
		if s.owner[demoKey(i)] == owner {
			keys = append(keys, demoKey(i))
		}
	}
	return keys
}

// sources reads one key through all hosts, twice.
func (s *story) sources(ctx context.Context) error {
	key := s.keysOf("two")[0]
	s.tell("%s is two's; read through each, two times:", key)
	for _, h := range []*demoHost{s.two, s.one, s.three} {
		want := []string{"peer", "l1"}
		if h == s.two {
			want = []string{"l2", "l2"}
		}
		first, took, _, err := h.read(ctx, key, cachesidecar.GetOptions{})
		if err == nil && first != want[0] {
			err = storyErrorf("%s, read through %s, comes from %q, not from %q", key, h.name, first, want[0])
		}
		if err != nil {
			return err
		}
		var again time.Duration
		// The copy is there a moment later, and lives for a second.
		if _, err := s.until(ctx, "a second read comes from elsewhere", func(ctx context.Context) (err error) {
			var source string
			if source, again, _, err = h.read(ctx, key, cachesidecar.GetOptions{}); err == nil && source != want[1] {
				err = fmt.Errorf("from %q", source)
			}
			return err
		}); err != nil {
			return err
		}
		s.aside("through %-6s from %-4s %7v, then from %s %7v", h.name, want[0], round(took), want[1], round(again))
	}
	s.aside("(l2: the host's own; peer: its owner was asked; l1: a copy, at most a second old)")
	return nil
}

// medians measures the median times of many reads through host one.
func (s *story) medians(ctx context.Context) error {
	const reads = 300
	measure := func(key, want string, o cachesidecar.GetOptions) (time.Duration, error) {
		var list []time.Duration
		for len(list) < reads {
			source, took, _, err := s.one.read(ctx, key, o)
			switch {
			case err != nil:
				return 0, err
			case source == want:
				list = append(list, took)
			case source == "peer": // the copy is too old
			default:
				return 0, storyErrorf("%s comes from %q, not from %q", key, source, want)
			}
		}
		slices.Sort(list)
		return list[reads/2], nil
	}
	l2, err := measure(s.keysOf("one")[0], "l2", cachesidecar.GetOptions{})
	if err != nil {
		return err
	}
	l1, err := measure(s.keysOf("two")[0], "l1", cachesidecar.GetOptions{})
	if err != nil {
		return err
	}
	peer, err := measure(s.keysOf("two")[0], "peer", cachesidecar.GetOptions{Fresh: true})
	if err != nil {
		return err
	}
	s.tell("medians of %d reads through one: l2 %v, l1 %v, peer %v (asked each time)",
		reads, round(l2), round(l1), round(peer))
	return nil
}

// kill ends host two without warning.
func (s *story) kill(context.Context) error {
	s.killed = time.Now()
	s.two.kill()
	s.tell("kill -9 of two")
	return nil
}

// tally is what requests meet during the outage of host two.
type tally struct {
	living []string // keys whose owners live
	key    string   // a key of host two

	hits, reads     int
	slowest, copies time.Duration // the slowest answer; until when copies of key were read
	tries, lost     int           // writes of key; those of unknown outcome
}

// try reads through the other hosts, and writes a key of host two. It returns nil once
// the write is accepted.
func (s *story) try(ctx context.Context, t *tally) error {
	for _, h := range []*demoHost{s.one, s.three} {
		for range 10 {
			source, took, _, err := h.read(ctx, t.living[t.reads%len(t.living)], cachesidecar.GetOptions{})
			if err != nil {
				return err
			}
			t.slowest = max(t.slowest, took)
			if t.reads++; source != "" {
				t.hits++
			}
		}
		source, took, _, err := h.read(ctx, t.key, cachesidecar.GetOptions{})
		if err != nil {
			return err
		}
		t.slowest = max(t.slowest, took)
		if source != "" {
			t.copies = time.Since(s.killed)
		}
	}
	t.tries++
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	_, err := s.one.Set(short, t.key, demoValue(t.key, 2), cachesidecar.SetOptions{})
	if err != nil && !errors.Is(err, cachesidecar.ErrUnavailable) {
		t.lost++
	}
	return err
}

// outage goes on through the other hosts, until they accept a write of a key of host two.
func (s *story) outage(ctx context.Context) error {
	t := &tally{living: append(s.keysOf("one"), s.keysOf("three")...), key: s.keysOf("two")[0]}
	try := func(ctx context.Context) error { return s.try(ctx, t) }
	if _, err := s.until(ctx, "a key of two cannot be written", try); err != nil {
		return err
	}
	took := time.Since(s.killed)
	s.tell("keys of two can be written again, %v after its end; "+
		"%d writes were refused before, of %d the outcome is unknown", round(took), t.tries-1-t.lost, t.lost)
	s.aside("copies of its keys were read for %v, then they were missed", round(t.copies))
	s.aside("%d of %d reads of the others' keys were hits, the slowest answer took %v",
		t.hits, t.reads, round(t.slowest))
	if t.hits < t.reads*95/100 {
		return storyErrorf("reads of keys whose owners live were missed")
	}
	if t.copies > 2*time.Second {
		return storyErrorf("a copy was read %v after its owner's end, at most a second is right", t.copies)
	}
	for _, k := range s.keysOf("two") {
		if _, err := s.one.Set(ctx, k, demoValue(k, 2), cachesidecar.SetOptions{}); err != nil {
			return storyErrorf("a write of %s after that: %w", k, err)
		}
	}
	all := func(ctx context.Context) error { return s.all(ctx, s.one, s.three) }
	if _, err := s.until(ctx, "not all keys are there", all); err != nil {
		return err
	}
	s.tell("set the keys of two anew: all %d are read through one and three", demoKeys)
	return s.members(ctx)
}

// all returns nil if every key has its last value, read through the given hosts.
func (s *story) all(ctx context.Context, hosts ...*demoHost) error {
	for _, h := range hosts {
		missing, old := 0, 0
		for i := range demoKeys {
			key, written := demoKey(i), 1
			if s.owner[key] == "two" {
				written = 2
			}
			source, _, value, err := h.read(ctx, key, cachesidecar.GetOptions{})
			switch {
			case err != nil:
				return err
			case source == "":
				missing++
			case !bytes.Equal(value, demoValue(key, written)):
				old++
			}
		}
		if missing+old > 0 {
			return fmt.Errorf("through %s %d of %d keys are missing, %d have an old value",
				h.name, missing, demoKeys, old)
		}
	}
	return nil
}

// restart starts host two again.
func (s *story) restart(ctx context.Context) error {
	begun := time.Now()
	if err := s.two.start(ctx); err != nil {
		return err
	}
	s.tell("two is started again")
	joined := func(ctx context.Context) error { return settled(ctx, s.list...) }
	if _, err := s.until(ctx, "two does not take its place", joined); err != nil {
		return err
	}
	took := time.Since(begun)
	st, err := s.two.Stats(ctx)
	if err != nil {
		return err
	}
	h := st.Cluster.Handoff
	s.tell("it has joined, and its share has been handed over to it, %v after its start: %d entries",
		round(took), h.Admitted+h.Fetched)
	all := func(ctx context.Context) error { return s.all(ctx, s.list...) }
	if _, err := s.until(ctx, "not all keys are there", all); err != nil {
		return err
	}
	s.aside("all %d keys are read through each of the three", demoKeys)
	return nil
}

// leave ends host three in order.
func (s *story) leave(ctx context.Context) error {
	begun := time.Now()
	before, err := s.three.Stats(ctx)
	if err != nil {
		return err
	}
	s.tell("three is told to end (SIGTERM); it has %d entries", before.L2.Entries)
	s.three.ending = true
	if err := s.three.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-s.three.exited:
	case <-time.After(demoPatience):
		return storyErrorf("three has not ended after %v", demoPatience)
	case <-ctx.Done():
		return ctx.Err()
	}
	took := time.Since(begun)
	if err := s.all(ctx, s.one, s.two); err != nil {
		return storyErrorf("after three has left: %w", err)
	}
	s.tell("it has handed them over and ended, after %v: all %d keys are read through one and two",
		round(took), demoKeys)
	return s.members(ctx)
}
