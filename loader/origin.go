package loader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// OriginConfig has the settings of one kind of origin. Each package below this one has
// such a Config, with a field for each setting of a configuration file. Custom is for an
// origin that the program implements itself.
type OriginConfig interface {
	// Kind returns the name of the kind of origin in logs, statistics and errors, for
	// example "postgres".
	Kind() string
	// Descriptors returns the maximum number of file descriptors that calls of the
	// origin use.
	Descriptors() int
	// Open validates the settings and reads the files that they name. It contacts no
	// server.
	Open(OriginOptions) (*Origin, error)
}

// OriginOptions has the settings that all kinds of origin share.
type OriginOptions struct {
	Timeout      time.Duration // of a call, connecting included; zero: the kind's default
	MaxValue     int           // bytes; zero: DefaultMaxValue, 8 MiB
	WriteThrough bool          // changes are written to the origin, so a Writer is needed
	Memory       Memory        // of values while they are read; nil: no bound
	OneSpelling  bool          // a feed deletes the keys as the origin writes them: others must not be let pass
}

// DefaultMaxValue is the size of the longest value that an origin returns, in bytes, if
// OriginOptions.MaxValue is zero. maxValue is the largest MaxValue.
const (
	DefaultMaxValue = 8 << 20
	maxValue        = 1 << 30
)

// WithDefaults returns a validated copy with the defaults filled in. timeout is the default of the
// kind of origin. writes says whether there are settings of writes, which only count with write-through.
func (o OriginOptions) WithDefaults(kind string, timeout time.Duration, writes bool) (OriginOptions, error) {
	if writes && !o.WriteThrough {
		return o, errors.New("there are settings of writes, and write_through is off: set it, or leave them out")
	}
	if o.Timeout < 0 || o.MaxValue < 0 || o.MaxValue > maxValue {
		return o, fmt.Errorf("%s origin: timeout %v, value %d: give zero for the defaults, or more",
			kind, o.Timeout, o.MaxValue)
	}
	o.Timeout = cmp.Or(o.Timeout, timeout)
	o.MaxValue = cmp.Or(o.MaxValue, DefaultMaxValue)
	return o, nil
}

// Origin is an open origin.
type Origin struct {
	Source
	Writer Writer // called with OriginOptions.WriteThrough only; nil: the origin takes no writes
	// List opens a list of all keys. The Lister may be a Checker. nil: the origin cannot list its keys.
	List func(List) (Lister, error)
	// Spelling returns the regular expression of the keys that OneSpelling lets pass; empty: of any. nil: of any.
	Spelling func(context.Context) (string, error)
	Checks   []Checker    // are asked at a start and a reload
	Probe    bool         // so is Source, for a key that nobody has: that costs the server nothing
	Close    func() error // nil: there is nothing to close
	Secrets  []string     // texts that must not appear in errors
}

// Checker asks the server whether the settings are valid. An error that wraps ErrPermanent means that
// they are not; any other error means that the server cannot be asked now.
type Checker interface {
	Check(ctx context.Context) error
}

// MaxConnections is the maximum number of connections in the settings of an origin.
const MaxConnections = 1 << 16

// Custom is an origin that the program implements itself. Both may be Checkers.
type Custom struct {
	Source Source // required
	Writer Writer // for write-through; required for it
}

// Kind returns "source".
func (Custom) Kind() string { return "source" }

// Descriptors returns 0, because the number is not known.
func (Custom) Descriptors() int { return 0 }

// Open returns the origin. A value larger than o.MaxValue gives ErrTooLarge.
func (c Custom) Open(o OriginOptions) (*Origin, error) {
	o, err := o.WithDefaults(c.Kind(), 0, c.Writer != nil)
	switch {
	case err != nil:
		return nil, err
	case c.Source == nil:
		return nil, errors.New("Source is nil: give one")
	case o.WriteThrough && c.Writer == nil:
		return nil, errors.New("write_through: a Source takes no writes: give a Writer too")
	}
	opened := &Origin{Writer: c.Writer}
	opened.Source = SourceFunc(func(ctx context.Context, key []byte) (Value, error) {
		v, err := c.Source.Load(ctx, key)
		if err == nil && len(v.Bytes) > o.MaxValue {
			return Value{}, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrTooLarge, len(v.Bytes), o.MaxValue)
		}
		return v, err
	})
	for _, part := range []any{c.Source, c.Writer} {
		if can, ok := part.(Checker); ok {
			opened.Checks = append(opened.Checks, can)
		}
	}
	return opened, nil
}
