package gossip

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of a round of joins.
const (
	maxTries       = 8 // join addresses, and missing members
	resolveTimeout = 2 * time.Second
	firstPause     = 64 // the first pause is rejoinEvery/64; then it doubles
)

// rejoin tries the addresses of targets until ctx ends. memberlist forgets a node some
// time after it died, so without rejoin a longer split of the network would never heal.
func (g *Gossip) rejoin(ctx context.Context) {
	pause := time.Duration(rejoinEvery / firstPause)
	var another []string // at most one
	for first := true; ; first = false {
		starting := pause < rejoinEvery
		targets, err := g.targets(ctx, starting)
		targets, another = append(targets, another...), nil
		if ctx.Err() != nil {
			return
		}
		found, e := g.join(targets)
		if err = errors.Join(err, e); err != nil {
			g.tellKeys(err.Error())
			if first && found == 0 {
				g.cfg.Log.Warn("no host answers at the join addresses yet: going on alone, and trying again",
					"addresses", strings.Join(g.cfg.Join, " "), "error", err)
			} else {
				g.cfg.Log.Debug("gossip: some do not answer", "error", err)
			}
		}
		pause = min(2*pause, rejoinEvery)
		wait := pause/2 + rand.N(pause)
		if g.conflicts.contested.Load() {
			wait = min(wait, contestEvery)
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		case a := <-g.restarted:
			t.Stop()
			another = append(another, a)
		}
	}
}

// targets returns the addresses to try:
//
//   - the join addresses at which no member lives,
//   - missing members, and after them members that were dropped,
//   - one living member while this node is starting, since gossip among few nodes may
//     miss a new one,
//   - one living member while this node's name is contested: see conflicts.
func (g *Gossip) targets(ctx context.Context, starting bool) ([]string, error) {
	var living, missing, dropped []string
	g.mu.Lock()
	known := map[string]bool{g.address: true}
	for _, m := range g.members {
		switch {
		case m.Alive:
			known[m.Address] = true
			living = append(living, m.Address)
		case m.dropped:
			dropped = append(dropped, m.Address)
		default:
			missing = append(missing, m.Address)
		}
	}
	g.mu.Unlock()
	var list []string
	add := func(from []string, most int) {
		rand.Shuffle(len(from), func(i, j int) { from[i], from[j] = from[j], from[i] })
		for _, a := range from {
			if !known[a] && most > 0 {
				known[a] = true
				list = append(list, a)
				most--
			}
		}
	}
	joins, err := g.resolve(ctx)
	add(joins, maxTries)
	tried := len(list)
	add(missing, maxTries)
	add(dropped, maxTries-(len(list)-tried))
	if (starting || g.conflicts.contested.Load()) && len(living) > 0 {
		list = append(list, living[rand.IntN(len(living))])
	}
	return list, err
}

// resolve returns all join addresses as ip:port.
func (g *Gossip) resolve(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	lists, errs := make([][]string, len(g.cfg.Join)), make([]error, len(g.cfg.Join))
	var wg sync.WaitGroup
	for i, j := range g.cfg.Join {
		wg.Go(func() { lists[i], errs[i] = g.resolveOne(ctx, j) }) // ends with ctx
	}
	wg.Wait()
	g.setOthers(lists)
	return slices.Concat(lists...), errors.Join(errs...)
}

func (g *Gossip) resolveOne(ctx context.Context, address string) (list []string, err error) {
	host, port, _ := net.SplitHostPort(address) // New has checked it
	hosts := []string{host}
	if _, err := netip.ParseAddr(host); err != nil {
		if hosts, err = g.cfg.Resolve(ctx, host); err != nil {
			return nil, fmt.Errorf("join address %s: %w", address, err)
		}
	}
	for _, h := range hosts {
		if ip, err := netip.ParseAddr(h); err == nil {
			list = append(list, net.JoinHostPort(ip.Unmap().String(), port))
		}
	}
	return list, nil
}

// Exchange exchanges members with the node at one address. memberlist's errors take
// several lines each; Exchange turns them into one.
func (g *Gossip) Exchange(address string) error {
	_, err := g.list.Join([]string{address})
	if many, ok := err.(interface{ WrappedErrors() []error }); ok {
		return errors.Join(many.WrappedErrors()...)
	}
	return err
}

// join exchanges members with the nodes at some addresses, and returns how many answered.
func (g *Gossip) join(addresses []string) (found int, err error) {
	errs := make([]error, len(addresses))
	var wg sync.WaitGroup
	for i, a := range addresses {
		wg.Go(func() { errs[i] = g.Exchange(a) }) // ends after twice streamTimeout
	}
	wg.Wait()
	for _, err := range errs {
		if err == nil {
			found++
		}
	}
	return found, errors.Join(errs...)
}
