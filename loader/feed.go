package loader

import (
	"context"
	"errors"
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
	// Stream continues behind a checkpoint. It cannot if there is a gap: one that the caller knows of, or one
	// that the server tells of. Then the stream begins now, and its Gap says why.
	Stream(ctx context.Context, gap Gap, from Checkpoint) (FeedStream, error)
	// SQL returns the statements that prepare the server.
	SQL() string
	// Secrets are texts that must not appear in errors.
	Secrets() []string
}

// Gap says why a feed may have missed changes, for people; "": it has missed none. What was cached before a gap
// must be dropped.
type Gap string

// Checkpoint says where a stream is, for other hosts: which server it comes from, what must stay the same for it to
// miss nothing, and up to where its changes are confirmed. It has up to 64 bytes, which the kind of origin alone
// understands; "" is no checkpoint, and continues with anything.
type Checkpoint string

// ErrFeed means that a server does not fit the settings of a feed, which cannot begin before that is
// mended.
var ErrFeed = errors.New("the feed's settings do not fit the server")

// ErrGap means that a server cannot send some changes any more: the next stream has a Gap.
var ErrGap = errors.New("changes are missing")

// FeedStream is what one host follows of a feed. Two goroutines use it: one receives, and one does all else.
type FeedStream interface {
	FeedStart
	FeedReceiver
	FeedProgress

	// LeftBehind returns what earlier feeds have left behind at the server, with what is to be done, once in the
	// life of the feed.
	LeftBehind(ctx context.Context) (warnings []string, err error)
	// GiveUp has the next stream begin with a gap, whichever host makes it. Only Close may follow.
	GiveUp(ctx context.Context) error
	// Close ends the stream. What was not confirmed comes again in the next one.
	Close()
}

// FeedStart is how a stream begins.
type FeedStart interface {
	// Gap returns why the stream does not continue what hosts have followed; "": it does.
	Gap() Gap
	// CloseGap is called once everything from before the stream was dropped: the next stream may continue this
	// one. Without a gap it does nothing.
	CloseGap(ctx context.Context) error
}

// FeedReceiver receives changes.
type FeedReceiver interface {
	// Receive returns the next transaction, or nil if there is none now. The server takes a host for
	// dead that calls neither Receive nor KeepAlive every few seconds.
	Receive(ctx context.Context) (*Transaction, error)
	// KeepAlive tells the server that this host lives.
	KeepAlive() error
}

// FeedProgress says whose changes may be dealt with, and tells the server what has been.
type FeedProgress interface {
	// View asks what a reader that begins now sees. A change is dealt with once readers see it: a load that
	// comes too early would bring the old value again.
	View(ctx context.Context) (View, error)
	// FindGap asks whether the stream may leave out changes of transactions that were open until now. It tells
	// of each reason once.
	FindGap(ctx context.Context) (Gap, error)
	// Nudge has the server send its log to the end: what is not written yet moves no stream.
	Nudge(ctx context.Context) error
	// Confirm says that everything up to a position has been dealt with. An earlier one says nothing.
	Confirm(Position)
	// Checkpoint returns where the stream is now.
	Checkpoint() Checkpoint
	// Forget says that all hosts know a checkpoint: the server need not keep what was confirmed by then.
	Forget(Checkpoint)
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
