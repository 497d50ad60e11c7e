package peer

import (
	"context"
	"crypto/x509"
	"errors"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/transport"
)

// Renewal replaces connections and no call fails. The steps for each connection:
//
//	0  greet the node on a separate connection: this shows that it accepts this node
//	1  make a new connection beside the old one, and do its handshake
//	2  hold new calls back; calls that have just taken the old connection may begin
//	3  retire the old connection: a last call is answered, so the other side has
//	   everything that was sent on it
//	4  greet on the new connection: from now on the other side serves nothing that
//	   arrives on the old one, and nothing does
//	5  let calls go on, on the new connection; tell the other side of the old one that
//	   nothing more comes; it closes when its calls have ended
//
// Steps 2 to 4 take a few milliseconds.

const (
	renewAtOnce  = 8
	renewTries   = 5
	renewTimeout = 2 * time.Second        // for one try, by default
	renewPause   = 200 * time.Millisecond // before the next try; doubled each time
	settleFor    = 5 * time.Millisecond   // step 2
)

// Renew replaces all connections by new ones with the credentials that are in use now.
// It returns at once. A connection that cannot be replaced stays for as long as the
// other side keeps it and its root is accepted.
func (p *Pool) Renew() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	if p.renewal != nil {
		p.renewal() // the new renewal does what is left of it
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.renewal = cancel
	remotes := slices.Collect(maps.Values(p.remotes))
	p.tasks.Go(func() { // ends with the last connection, or with Close
		defer cancel()
		var group errgroup.Group
		group.SetLimit(renewAtOnce)
		for _, r := range remotes {
			group.Go(func() error { p.renewOne(ctx, r); return nil })
		}
		_ = group.Wait() // the functions return no errors
	})
}

// renewOne replaces the existing connections to a node. A connection that cannot be
// replaced is closed if its root is not accepted any more.
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

// replaceSome tries each purpose and returns the ones that are still to be replaced.
func (p *Pool) replaceSome(ctx context.Context, r *remote, list []Purpose) []Purpose {
	// Without a connection nothing is to do: the next one has the new credentials.
	list = slices.DeleteFunc(list, func(purpose Purpose) bool { return r.redialer(purpose).Idle() })
	if len(list) == 0 {
		return nil
	}
	// The other side may refuse this node's new credentials, and says so only after the
	// handshake. Meet finds that out before any connection is given up.
	if p.Meet(ctx, r.id, r.address) != nil {
		return list
	}
	return slices.DeleteFunc(list, func(purpose Purpose) bool {
		err := p.replace(ctx, r, purpose)
		return err == nil || errors.Is(err, rpc.ErrRedialerClosed)
	})
}

// withdrawn reports whether the root of the certificate that the other side has shown
// is not accepted any more.
func (p *Pool) withdrawn(c *rpc.Client) bool {
	s, ok := c.Conn().(*transport.Secured)
	if !ok {
		return false
	}
	_, err := p.cfg.Credentials().verify(s.ConnectionState().PeerCertificates)
	var unknown x509.UnknownAuthorityError
	return errors.As(err, &unknown)
}

func (p *Pool) replace(ctx context.Context, r *remote, purpose Purpose) error {
	ctx, cancel := context.WithTimeout(ctx, p.renewTimeout)
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
		err := old.Retire(ctx)
		if errors.Is(err, rpc.ErrRetiring) { // the process leaves, and answers the calls of the old connection
			_ = c.Close()
			return nil, rpc.ErrRedialerClosed
		}
		retired = old // after other errors it is broken, and its calls fail
		return p.greetOrClose(ctx, c, r, purpose)
	})
	if !replaced {
		_ = c.Close()
	}
	if retired == nil {
		return err
	}
	p.tasks.Go(retired.Finish) // waits, at most 10 s, for a peer that does not read
	return err
}
