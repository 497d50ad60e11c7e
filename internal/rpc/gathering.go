package rpc

import "github.com/cachesidecar/cachesidecar/internal/wire"

// gathering is of a Client with ClientConfig.Direct. Callers whose answers come in one read
// soon make their next calls. If each caller wrote its request, or the first one let the
// others run and then wrote, a second processor would write them in twos and threes. So
// during such a batch only the gatherer writes, a goroutine that is started after a part of
// the answers: the scheduler runs it behind their callers, and it writes what they have
// queued. The peer begins with that part while the next callers run.
//
// The Client's lock guards held, last and turn.
type gathering struct {
	c     *Client
	on    bool // answers of a batch are yet to be delivered
	every int  // answers of a part
	left  int  // answers of the present part

	held bool // only a gatherer writes; one is or will be started that ends this
	last bool // the last gatherer of the batch has been started
	turn bool // the gatherer may begin a write

	writeFn func() // write
}

// The calls in flight make partsInFlight parts: one is with the peer, one with the callers,
// one between them. With fewer than manyInFlight calls, parts are too small to pay for a
// gatherer.
const (
	partsInFlight = 3
	manyInFlight  = 8
)

// begin begins a batch, if it has several answers of many calls.
func (g *gathering) begin() {
	c := g.c
	if in := &c.input; !c.cfg.Direct || !in.whole(in.r) || !in.whole(in.behind(in.r)) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.calls.inFlight()
	if n < manyInFlight {
		return
	}
	g.on, g.held, g.last = true, true, false
	g.every = n / partsInFlight
	g.left = g.every
}

// answer is called before an answer is delivered. next is where the next one would begin.
// The caller that is woken last runs first, so the gatherer is started before that one.
func (g *gathering) answer(next int) {
	if !g.on {
		return
	}
	g.left--
	switch {
	case !g.c.input.whole(next):
		g.on = false
		g.c.mu.Lock()
		g.last = true
		g.c.mu.Unlock()
		g.start()
	case g.left == 0:
		g.left = g.every
		g.start()
	}
}

// start starts a gatherer.
func (g *gathering) start() {
	g.c.background.Add(1)
	go g.writeFn() // owned by the client: writes once or until all is written; Close waits
}

// write writes what is queued, once while other parts of the batch follow.
func (g *gathering) write() {
	c := g.c
	defer c.background.Done()
	c.mu.Lock()
	defer c.mu.Unlock()
	if g.last {
		g.held = false
	}
	if !c.writing && !c.requests.empty() {
		c.writing, g.turn = true, true
		c.writeNowLocked()
	}
}

// mayWriteLocked reports whether another write may begin.
func (g *gathering) mayWriteLocked() bool {
	may := !g.held || g.turn
	g.turn = false
	return may
}

// behind returns the offset behind the frame at an offset.
func (in *input) behind(at int) int { return at + wire.LengthSize + wire.FrameLength(in.buf[at:]) }

// whole reports whether a whole frame is at an offset.
func (in *input) whole(at int) bool { return in.w-at >= wire.LengthSize && in.behind(at) <= in.w }
