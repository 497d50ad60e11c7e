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

// ListTimeout is how long an origin may take for all its keys, unless told
// otherwise.
const ListTimeout = 10 * time.Minute

// Lister is an origin that can say which keys it has.
//
// Keys calls each with every key that existed when Keys was called, in any
// order, some perhaps twice, and returns nil only if it has given them all: a
// filter made of half the keys would deny the others. What comes into being
// meanwhile may be among them. A key that nobody can ask for, being empty or
// longer than kv.MaxKeyLen, is left out.
//
// The calls of each come one after the other, and key is theirs until they
// return; the first error of one ends Keys, which returns it. That is how the
// number of keys is bounded; the time is by the origin's own timeout. Keys
// returns soon after ctx is done, and its errors hold no secrets.
type Lister interface {
	Keys(ctx context.Context, each func(key []byte) error) error
}

// List is the settings of a list of all keys: the query of postgres, the URL of http or
// the command of exec. redis needs none of them, and memcached has no lists.
type List struct {
	Query   string        `yaml:"query"`   // of one column, the key, without parameters
	URL     string        `yaml:"url"`     // whose answer has a key in each line
	Command []string      `yaml:"command"` // that prints a key in each line
	Timeout time.Duration `yaml:"timeout"` // of all; default 10 min, at most 24 h

	Lister Lister `yaml:"-"` // of the program's own, in place of the origin's
}

// maxListTimeout bounds List.Timeout.
const maxListTimeout = 24 * time.Hour

// Only returns the settings with their default. It returns an error if the setting that
// a kind of origin needs is missing, or another one is given; "" needs none.
func (l List) Only(setting string) (List, error) {
	if err := settings.Bounded("timeout", l.Timeout, 0, maxListTimeout); err != nil {
		return l, err
	}
	for _, s := range []struct {
		name  string
		given bool
	}{{"query", l.Query != ""}, {"url", l.URL != ""}, {"command", len(l.Command) > 0}} {
		switch {
		case s.given && s.name != setting:
			return l, fmt.Errorf("%s is for another kind of origin: leave it out", s.name)
		case !s.given && s.name == setting:
			return l, fmt.Errorf("there is no %s that gives all keys: give it", s.name)
		}
	}
	l.Timeout = cmp.Or(l.Timeout, ListTimeout)
	return l, nil
}

// Lines is a writer that takes keys, one a line, and gives them to each. Lines
// end with LF or CRLF; an empty one is none, and one longer than a key can be is
// an error, since what is written is no list of keys then.
type Lines struct {
	each func(key []byte) error
	line []byte // begun, and not ended
	n    int    // lines that have ended
	err  error
}

// NewLines returns a writer of keys.
func NewLines(each func(key []byte) error) *Lines { return &Lines{each: each} }

// Write takes any part of the list. After an error it takes nothing more.
func (l *Lines) Write(p []byte) (int, error) {
	for rest := p; l.err == nil && len(rest) > 0; {
		part, after, ended := bytes.Cut(rest, []byte{'\n'})
		if len(l.line)+len(part) > kv.MaxKeyLen+len("\r") {
			l.err = l.tooLong()
		} else if l.line = append(l.line, part...); ended {
			l.end()
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

// Close takes what was written last as a line, whether or not it has ended, and
// returns the first error of all.
func (l *Lines) Close() error {
	if l.err == nil {
		l.end()
	}
	return l.err
}

func (l *Lines) end() {
	key := bytes.TrimSuffix(l.line, []byte{'\r'})
	switch {
	case len(key) > kv.MaxKeyLen:
		l.err = l.tooLong()
	case len(key) > 0:
		l.err = l.each(key)
	}
	l.line = l.line[:0]
	l.n++
}

func (l *Lines) tooLong() error {
	return fmt.Errorf("%w: line %d of the list is longer than a key can be, %d bytes: give one key a line", ErrPermanent, l.n+1, kv.MaxKeyLen)
}
