package loader

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// OriginConfig is the settings of one kind of origin. Each package below this one has
// such a Config, with a field per setting of a configuration file. Custom is for an
// origin of the program's own.
type OriginConfig interface {
	// Kind names the kind of origin in logs, statistics and errors: "postgres".
	Kind() string
	// Descriptors returns how many file descriptors the calls of the origin use at most.
	Descriptors() int
	// Open checks the settings and reads the files that they name. It asks no server.
	Open(OriginOptions) (*Origin, error)
}

// OriginOptions are the settings that all kinds of origin share.
type OriginOptions struct {
	Timeout      time.Duration // of a call; zero: the kind's default
	MaxValue     int           // bytes; zero: 8 MiB
	WriteThrough bool          // changes are written to the origin, so it needs a Writer
}

// CheckWrites returns an error if there are settings of writes and no write-through.
func (o OriginOptions) CheckWrites(given bool) error {
	if given && !o.WriteThrough {
		return errors.New("there are settings of writes, and write_through is off: set it, or leave them out")
	}
	return nil
}

// Origin is an origin that is open.
//
// Source, Writer and what List returns may have a method Check(context.Context) error
// each. It asks the server whether the settings fit. An error that wraps ErrPermanent
// says that they do not; any other error says that the server cannot be asked now.
type Origin struct {
	Source
	Writer  Writer                     // nil without OriginOptions.WriteThrough
	List    func(List) (Lister, error) // nil: the origin cannot list its keys
	Close   func() error
	Secrets []string // texts that no error may show
}

// MaxConnections bounds what the settings of an origin may say, of connections.
const MaxConnections = 1 << 16

// Custom is an origin of the program's own.
type Custom struct {
	Source Source // needed
	Writer Writer // of write-through; needed there
}

// Kind returns "source".
func (Custom) Kind() string { return "source" }

// Descriptors returns 0: they are not known.
func (Custom) Descriptors() int { return 0 }

// Open returns the origin. Its values are held to o.MaxValue.
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
	return &Origin{Source: sized{c.Source, o.MaxValue}, Writer: c.Writer, Close: func() error { return nil }}, nil
}

// sized is a Source whose values have a bound.
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
