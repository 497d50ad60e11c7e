package peer

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar/internal/rpc"
)

// Renewal replaces connections without a call that fails. For each one:
//
//	0  the node is greeted on a connection for that alone: it accepts this one
//	1  a new connection is made, and its handshake done, beside the old one
//	2  calls wait; those that have just taken the old connection are let begin
//	3  the old one takes no more calls: a last one is answered, so the other side
//	   has all that was sent on it
//	4  the new one is greeted: from then on the other side serves nothing that
//	   comes on the old one, and nothing does
//	5  calls go on, on the new one; the other side of the old one is told that
//	   nothing more comes, and it closes when its calls have ended
//
// Steps 2 to 4 take a few milliseconds.

const (
	renewAtOnce  = 8
	renewTries   = 5
	renewTimeout = 2 * time.Second        // of one try
	renewPause   = 200 * time.Millisecond // before the next, and doubled then
	settleFor    = 5 * time.Millisecond   // step 2
)

// Renew replaces all connections by new ones, which have the credentials that are
// in use now. It returns at once. A connection that cannot be replaced stays as
// long as the other side lets it and its root is accepted.
func (p *Pool) Renew() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	if p.renewal != nil {
		p.renewal() // this one does what is left of it
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.renewal = cancel
	remotes := make([]*remote, 0, len(p.remotes))
	for _, r := range p.remotes {
		remotes = append(remotes, r)
	}
	p.tasks.Go(func() { // ends with the last connection, or with Close
		defer cancel()
		var group errgroup.Group
		group.SetLimit(renewAtOnce)
		for _, r := range remotes {
			group.Go(func() error { p.renewOne(ctx, r); return nil })
		}
		_ = group.Wait() // nothing in it fails
	})
}

// renewOne replaces the connections to a node, those that there are. What cannot be
// replaced ends if its root is accepted no more.
func (p *Pool) renewOne(ctx context.Context, r *remote) {
	left, pause := []Purpose{Poll, Call}, renewPause
	for range renewTries {
		if left = p.replaceSome(ctx, r, left); len(left) == 0 {
			return
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
			pause *= 2
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
	for _, purpose := range left {
		if c := r.redialer(purpose).Live(); c != nil && p.withdrawn(c) {
			_ = c.Close()
		}
	}
}

// replaceSome returns those that are left.
func (p *Pool) replaceSome(ctx context.Context, r *remote, list []Purpose) []Purpose {
	// Where there is none the next one has the new credentials.
	list = slices.DeleteFunc(list, func(purpose Purpose) bool { return r.redialer(purpose).Idle() })
	if len(list) == 0 {
		return nil
	}
	// The other side may refuse what this one shows now, and says so only after the
	// handshake: nothing is given up for that.
	if p.Meet(ctx, r.id, r.address) != nil {
		return list
	}
	return slices.DeleteFunc(list, func(purpose Purpose) bool {
		err := p.replace(ctx, r, purpose)
		return err == nil || errors.Is(err, rpc.ErrRetired)
	})
}

// withdrawn says whether the other side of a connection has shown a certificate whose
// root is accepted no more.
func (p *Pool) withdrawn(c *rpc.Client) bool {
	s, ok := c.Conn().(*rpc.Secured)
	if !ok {
		return false
	}
	_, err := p.cfg.Credentials().verify(s.ConnectionState().PeerCertificates)
	var unknown x509.UnknownAuthorityError
	return errors.As(err, &unknown)
}

func (p *Pool) replace(ctx context.Context, r *remote, purpose Purpose) error {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	c, err := p.open(ctx, r)
	if err != nil {
		return err
	}
	var retired *rpc.Client
	replaced, err := r.redialer(purpose).Replace(ctx, func(old *rpc.Client) (*rpc.Client, error) {
		t := time.NewTimer(settleFor)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		_ = old.Retire(ctx) // else it is broken, and what is in flight fails with it
		retired = old
		return p.greeted(ctx, c, r, purpose)
	})
	if !replaced {
		_ = c.Close()
		return err
	}
	p.tasks.Go(retired.Finish) // waits, 10 s at most, for a peer that does not read
	return err
}
