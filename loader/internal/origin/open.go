package origin

import (
	"cmp"
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar/loader"
)

// Limits checks the timeout of a call and the maximum size of a value, and fills in the
// defaults: the timeout of the kind of origin, and 8 MiB. most is the largest maximum.
func Limits(kind string, timeout *time.Duration, maxValue *int, usual time.Duration, most int) error {
	if *timeout < 0 || *maxValue < 0 || *maxValue > most {
		return fmt.Errorf("%s origin: timeout %v, value %d: give zero for the defaults, or more",
			kind, *timeout, *maxValue)
	}
	*timeout = cmp.Or(*timeout, usual)
	*maxValue = cmp.Or(*maxValue, 8<<20)
	return nil
}

// Open opens an origin, and its writer if o asks for one. writes says whether there are
// settings of writes.
func Open[S loader.Source, W loader.Writer](
	o loader.OriginOptions, writes bool,
	source func() (S, error), writer func(S) (W, error), origin func(S) *loader.Origin,
) (*loader.Origin, error) {
	if err := o.CheckWrites(writes); err != nil {
		return nil, err
	}
	s, err := source()
	if err != nil {
		return nil, err
	}
	opened := origin(s)
	opened.Source = s
	if o.WriteThrough {
		if opened.Writer, err = writer(s); err != nil {
			_ = opened.Close() // no data is lost
			return nil, err
		}
	}
	return opened, nil
}
