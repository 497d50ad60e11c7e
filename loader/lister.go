package loader

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/settings"
)

// ListTimeout is the default time within which an origin must list all its keys.
const ListTimeout = 10 * time.Minute

// Lister is an origin that can list its keys.
//
// Keys calls each for every key that existed when Keys was called, in any order. It may
// give some keys twice, and it may give keys that were added during the call. Keys
// returns nil only if it has given all keys, because a filter with half of the keys
// would deny the others. Keys leaves out keys that cannot be requested: empty ones, and
// those longer than 1,024 bytes.
//
// The calls of each are sequential. each may use key until it returns. The first error
// of each ends Keys, and Keys returns it; in this way the caller limits the number of
// keys. The origin's own timeout limits the time. Keys returns soon after ctx is done.
// Its errors contain no secrets.
type Lister interface {
	Keys(ctx context.Context, each func(key []byte) error) error
}

// List has the settings of a list of all keys: the query of postgres, the URL of http or
// the command of exec. redis needs none of them. memcached cannot list keys.
type List struct {
	// Query is the query of PostgreSQL that gives one column, the key. Required for
	// postgres. Bounds: without parameters.
	Query string `yaml:"query" answers:"yes"`
	// URL is the address whose answer has one key in each line. Form: URL. Required for
	// http.
	URL string `yaml:"url" answers:"path"`
	// Command is the command that prints one key in each line. Required for exec.
	Command []string `yaml:"command" answers:"yes"`
	// Timeout is the time for the whole list. Default: 10m. Bounds: up to 24h.
	Timeout time.Duration `yaml:"timeout"`

	Lister Lister `yaml:"-"` // the program's own Lister, instead of the origin's
	Most   int    `yaml:"-"` // keys that the list may give, each as often as it is given; zero: any number
}

// maxListTimeout is the maximum of List.Timeout.
const maxListTimeout = 24 * time.Hour

// Only returns the settings with defaults filled in. It returns an error if the setting
// that the kind of origin needs is missing, or if another one is given. setting "" means
// that the kind needs none.
func (list List) Only(setting string) (List, error) {
	if err := settings.Bounded("timeout", list.Timeout, 0, maxListTimeout); err != nil {
		return list, err
	}
	for _, s := range []struct {
		name  string
		given bool
	}{{"query", list.Query != ""}, {"url", list.URL != ""}, {"command", len(list.Command) > 0}} {
		switch {
		case s.given && s.name != setting:
			return list, settings.Problemf(s.name, "is for another kind of origin: leave it out")
		case !s.given && s.name == setting:
			return list, fmt.Errorf("there is no %s that gives all keys: give it", s.name)
		}
	}
	list.Timeout = cmp.Or(list.Timeout, ListTimeout)
	return list, nil
}

// Listing is what an origin gives of a list, from its beginning to its end. It counts the keys, and slows the list
// down, so that one that never ends costs little until its timeout. It is for one goroutine.
type Listing struct {
	ctx  context.Context
	each func(key []byte) error
	most int
	n    int           // keys so far
	cost time.Duration // that was not waited for yet
	due  time.Time     // when the rest was due
}

// What a list may cost: a million keys a second. Each takes a tenth of that, so that the list takes a tenth of a
// processor.
const (
	keyTime  = time.Microsecond
	byteTime = 32 * time.Nanosecond // of a body, which may be compressed and have no keys
	pageTime = 250 * keyTime        // of a request for more keys, also if there are none
	stepTime = 5 * time.Millisecond // after which a list waits
)

// Begin begins to call each for the keys of a list, until ctx is done.
func (list List) Begin(ctx context.Context, each func(key []byte) error) *Listing {
	return &Listing{ctx: ctx, each: each, most: list.Most, due: time.Now()}
}

// Key calls each, unless the key cannot be requested. It counts in any case.
func (given *Listing) Key(key []byte) error {
	if given.n++; given.most > 0 && given.n > given.most {
		return fmt.Errorf("%w: the list has more than %d keys and empty lines, each as often as it is given: have it "+
			"end, or raise existing_keys.keys", ErrPermanent, given.most)
	}
	if err := given.spend(keyTime); err != nil || !kv.ValidKey(key) {
		return err
	}
	return given.each(key)
}

// Page counts a request for more keys.
func (given *Listing) Page() error { return given.spend(pageTime) }

// Bytes counts n bytes of the list's body.
func (given *Listing) Bytes(n int) error { return given.spend(time.Duration(n) * byteTime) }

// spend waits until what the list has given is due. One that is slow by itself does not wait.
func (given *Listing) spend(cost time.Duration) error {
	if given.cost += cost; given.cost < stepTime {
		return nil
	}
	now := time.Now()
	given.due, given.cost = given.due.Add(given.cost), 0
	if given.due.Before(now) {
		given.due = now
	} else if !kv.Sleep(given.ctx, given.due.Sub(now)) {
		return context.Cause(given.ctx)
	}
	return nil
}

// Lines is a writer that receives keys, one per line, and passes them to a Listing. Lines end
// with LF or CRLF. A line longer than a key can be is an error, because then the text is not
// a list of keys.
type Lines struct {
	to   *Listing
	line []byte // the incomplete last line
	n    int    // number of complete lines
	err  error
}

// NewLines returns a Lines that passes its keys to a Listing.
func NewLines(to *Listing) *Lines { return &Lines{to: to} }

// Write accepts any part of the list. After an error it accepts nothing more.
func (l *Lines) Write(p []byte) (int, error) {
	for rest := p; l.err == nil && len(rest) > 0; {
		part, after, ended := bytes.Cut(rest, []byte{'\n'})
		if len(l.line)+len(part) > kv.MaxKeyLen+len("\r") {
			l.err = l.tooLong()
		} else if l.line = append(l.line, part...); ended {
			l.endLine()
		}
		rest = after
	}
	if l.err != nil {
		return 0, l.err
	}
	return len(p), nil
}

// Err returns the first error.
func (l *Lines) Err() error { return l.err }

// Close treats the rest as a line, even without a line end, and returns the first error.
func (l *Lines) Close() error {
	if l.err == nil {
		l.endLine()
	}
	return l.err
}

func (l *Lines) endLine() {
	key := bytes.TrimSuffix(l.line, []byte{'\r'})
	if l.err = l.to.Key(key); len(key) > kv.MaxKeyLen {
		l.err = l.tooLong()
	}
	l.line = l.line[:0]
	l.n++
}

func (l *Lines) tooLong() error {
	return fmt.Errorf("%w: line %d of the list is longer than a key can be, %d bytes: give one key a line",
		ErrPermanent, l.n+1, kv.MaxKeyLen)
}
