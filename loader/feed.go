package loader

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// FeedConfig has the settings of a feed of changes of one kind of origin.
type FeedConfig interface {
	// Kind returns the name of the kind of origin, for example "postgres".
	Kind() string
	// Open validates the settings and reads the files that they name. It contacts no server.
	Open() (Feed, error)
}

// Feed tells which keys have changed at an origin, by whatever hand. It is safe for concurrent use.
type Feed interface {
	// Namespaces returns the namespaces whose keys the feed names.
	Namespaces() []string
	// Check asks the server whether the settings fit it. It returns what works and is dangerous.
	Check(ctx context.Context) (warnings []string, err error)
	// Stream begins where the server can go on. If anew is not empty, it begins now, and so it does if what
	// it brings would not continue a State, of any host, that was certified last. "" continues with anything.
	Stream(ctx context.Context, anew, state string) (FeedStream, error)
	// SQL returns the statements that prepare the server.
	SQL() string
	// Secrets are texts that must not appear in errors.
	Secrets() []string
}

// FeedStream is what one host follows of a feed. It is used so:
//
//	Anew, State       once, after Feed.Stream
//	Begun             once what is older has been dropped
//	Receive, Alive    again and again, by a goroutine of their own
//	View, Broken, Nudge, Confirm, Forget
//	                  again and again, by another goroutine
//	Left              once in the life of a feed
//	GiveUp            where the stream is of no use any more
//	Close             at the end
type FeedStream interface {
	// Anew returns why earlier changes are not in the stream; "": all are.
	Anew() string
	// State identifies the stream, what must stay the same for it to be whole, and up to where all is confirmed:
	// up to 64 bytes.
	State() string
	// Begun is called once, after everything from before the stream was dropped: what is confirmed
	// from now on need not be sent again.
	Begun(ctx context.Context) error
	// Receive returns the next transaction, or nil if there is none now. The server takes a host for
	// dead that calls neither Receive nor Alive every few seconds.
	Receive(ctx context.Context) (*Transaction, error)
	// Alive tells the server that this host lives. It is for the goroutine of Receive.
	Alive() error
	// View asks what a reader that begins now sees.
	View(ctx context.Context) (View, error)
	// Broken returns why the stream may leave out changes of transactions that were open until now;
	// "": it does not. It tells of each reason once.
	Broken(ctx context.Context) (why string, err error)
	// Nudge has the server send its log to the end: what is not written yet moves no stream.
	Nudge(ctx context.Context) error
	// GiveUp has the next stream begin anew, whichever host makes it. Only Close may follow.
	GiveUp(ctx context.Context) error
	// Left returns what earlier feeds have left behind at the server, with what is to be done, once in the
	// life of the feed.
	Left(ctx context.Context) (warnings []string, err error)
	// Confirm says that everything up to a position has been dealt with. An earlier one says nothing.
	Confirm(Position)
	// Forget says that all hosts know a State of the stream: the server need not keep what was confirmed by then.
	Forget(state string)
	Close()
}

// View is what a reader sees, and where the server is then.
type View struct {
	Snapshot
	Now  time.Time // by the clock of the server
	Kept int64     // bytes that the server keeps for the feed
	End  Position  // where the server's log ends
	// Inserted is where it will end once all is written that has been committed by now.
	Inserted Position
}

// Snapshot says which transactions a reader sees.
type Snapshot interface {
	// Sees reports whether it sees what a transaction has changed.
	Sees(*Transaction) bool
	// SeesPast reports whether it sees all that is not in the stream.
	SeesPast() bool
	// Outlives reports whether all transactions have ended that were open in an earlier one of the stream.
	Outlives(earlier Snapshot) bool
}

// ErrFeed means that a server does not fit the settings of a feed, which cannot begin before that is
// mended.
var ErrFeed = errors.New("the feed's settings do not fit the server")

// ErrGap means that a server cannot send some changes any more: the feed must begin anew.
var ErrGap = errors.New("changes are missing")

// Position is a place in the log of an origin.
type Position uint64

// Transaction is what a committed transaction has changed.
type Transaction struct {
	ID        uint64    // zero: it is visible at once
	End       Position  // behind its commit
	Committed time.Time // by the clock of the server; zero: not known
	Rows      int       // rows, truncations and messages that it brought
	Keys      int       // in Changed
	Changed   map[string]*Changed
}

// Changed is what has changed in one namespace.
type Changed struct {
	Keys  map[string]struct{}
	Flush string // why the whole namespace is to be flushed; "": it is not
}

// MaxChanged is the number of keys of one namespace up to which keys are deleted one by one. More
// are one flush.
const MaxChanged = 10_000

func (t *Transaction) of(namespace string) *Changed {
	if t.Changed == nil {
		t.Changed = map[string]*Changed{}
	}
	c := t.Changed[namespace]
	if c == nil {
		c = &Changed{Keys: map[string]struct{}{}}
		t.Changed[namespace] = c
	}
	return c
}

// Delete notes that a key has changed.
func (t *Transaction) Delete(namespace, key string) {
	c := t.of(namespace)
	if c.Flush != "" {
		return
	}
	if _, there := c.Keys[key]; there {
		return
	}
	if len(c.Keys) == MaxChanged {
		t.Flush(namespace, fmt.Sprintf("more than %d keys changed at once", MaxChanged))
		return
	}
	c.Keys[key] = struct{}{}
	t.Keys++
}

// Flush notes that any key of a namespace may have changed.
func (t *Transaction) Flush(namespace, why string) {
	c := t.of(namespace)
	if c.Flush == "" {
		c.Flush = why
	}
	t.Keys -= len(c.Keys)
	clear(c.Keys)
}

// Join adds what another transaction has changed.
func (t *Transaction) Join(other *Transaction) {
	t.Rows += other.Rows
	for namespace, c := range other.Changed {
		if c.Flush != "" {
			t.Flush(namespace, c.Flush)
		}
		for key := range c.Keys {
			t.Delete(namespace, key)
		}
	}
}
