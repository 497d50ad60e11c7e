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
	Timeout      time.Duration // of a call; zero: the kind's default
	MaxValue     int           // bytes; zero: DefaultMaxValue, 8 MiB
	WriteThrough bool          // changes are written to the origin, so a Writer is needed
	Memory       Memory        // of values while they are read; nil: no bound
}

// CheckWrites returns an error if settings for writes are given and write-through is
// off.
func (o OriginOptions) CheckWrites(given bool) error {
	if given && !o.WriteThrough {
		return errors.New("there are settings of writes, and write_through is off: set it, or leave them out")
	}
	return nil
}

// Origin is an open origin.
//
// Source, Writer and the Lister that List returns may each have a method
// Check(context.Context) error. Check asks the server whether the settings are valid. An
// error that wraps ErrPermanent means that they are not; any other error means that the
// server cannot be asked now.
type Origin struct {
	Source
	Writer  Writer                     // nil without OriginOptions.WriteThrough
	List    func(List) (Lister, error) // nil: the origin cannot list its keys
	Close   func() error
	Secrets []string // texts that must not appear in errors
}

// DefaultMaxValue is the size of the longest value that an origin returns, in bytes, if
// OriginOptions.MaxValue is zero.
const DefaultMaxValue = 8 << 20

// MaxConnections is the maximum number of connections in the settings of an origin.
const MaxConnections = 1 << 16

// Custom is an origin that the program implements itself.
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
	if err := o.CheckWrites(c.Writer != nil); err != nil {
		return nil, err
	}
	switch {
	case c.Source == nil:
		return nil, errors.New("Source is nil: give one")
	case o.WriteThrough && c.Writer == nil:
		return nil, errors.New("write_through: a Source takes no writes: give a Writer too")
	}
	var source Source = sized{c.Source, cmp.Or(o.MaxValue, DefaultMaxValue)}
	if can, ok := c.Source.(checker); ok {
		source = checked{source.(sized), can}
	}
	return &Origin{Source: source, Writer: c.Writer, Close: func() error { return nil }}, nil
}

// sized is a Source with a limit for the size of its values.
type sized struct {
	Source
	most int // bytes
}

func (s sized) Load(ctx context.Context, key []byte) (Value, error) {
	v, err := s.Source.Load(ctx, key)
	if err == nil && len(v.Bytes) > s.most {
		return Value{}, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrTooLarge, len(v.Bytes), s.most)
	}
	return v, err
}

// checker is a part of an origin that can be asked whether the settings fit it.
type checker interface {
	Check(ctx context.Context) error
}

// checked is a sized Source that can be asked.
type checked struct {
	sized
	checker
}
