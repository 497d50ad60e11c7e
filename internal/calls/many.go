package calls

import (
	"errors"
	"fmt"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// longAnswer is how many bytes of values show that keys which are BUSY had no room in the answer.
const longAnswer = wire.MaxMGetAnswer / 2

// Many makes a call of many keys, by requests of at most wire.MaxKeys. ask makes one of them, and tells the reply of
// each key, in order. take gets those that are no failure. Many returns a *cachesidecar.BatchError if keys have
// failed. A failure of ask is that of its keys and of all that follow.
func Many(
	keys []string, ask func(keys []string, tell func(key string, r *wire.Reply)) error,
	take func(key string, r *wire.Reply),
) error {
	var b batch
	for keys = b.valid(keys); len(keys) > 0; {
		some := keys[:min(len(keys), wire.MaxKeys)]
		keys = keys[len(some):]
		var busy []string
		var why []error
		bytes := 0
		err := ask(some, func(key string, r *wire.Reply) {
			switch err := Err(r); {
			case r.Status == wire.Busy:
				busy, why = append(busy, key), append(why, err)
			case err != nil && r.Status != wire.Miss:
				b.fail(key, err)
			default:
				bytes += len(r.Value)
				take(key, r)
			}
		})
		switch {
		case err != nil:
			for _, key := range append(some[:len(some):len(some)], keys...) {
				b.fail(key, err)
			}
			return b.err()
		case len(busy) > 0 && busy[0] != some[0]: // they may have had no room
			keys = append(busy, keys...)
		case len(busy) > 0 && bytes >= longAnswer: // and so may these, but for the first
			b.fail(busy[0], why[0])
			keys = append(busy[1:], keys...)
		default: // asking again is no use
			for i, key := range busy {
				b.fail(key, why[i])
			}
		}
	}
	return b.err()
}

// batch has the keys of a call that have failed.
type batch struct{ failed cachesidecar.BatchError }

func (b *batch) fail(key string, err error) {
	if b.failed.Errors == nil {
		b.failed.Errors = map[string]error{}
	}
	if b.failed.Errors[key] == nil {
		b.failed.Keys = append(b.failed.Keys, key)
		b.failed.Errors[key] = err
	}
}

func (b *batch) err() error {
	if len(b.failed.Keys) == 0 {
		return nil
	}
	return &b.failed
}

// valid returns the keys that a request may have, each of them once: no key may both be found and fail. The others
// fail here: they could make a request too long.
func (b *batch) valid(keys []string) []string {
	left, seen := make([]string, 0, len(keys)), make(map[string]bool, len(keys))
	for _, key := range keys {
		switch {
		case invalid(key):
			b.fail(key, fmt.Errorf("%w: the key has %d bytes: a key has 1 to %d", cachesidecar.ErrBadRequest, len(key),
				kv.MaxKeyLen))
		case !seen[key]:
			left, seen[key] = append(left, key), true
		}
	}
	return left
}

func invalid(key string) bool { return len(key) == 0 || len(key) > kv.MaxKeyLen }

// Of returns the error of one key in the error of a call of many.
func Of(err error, key string) error {
	var b *cachesidecar.BatchError
	if errors.As(err, &b) && b.Errors[key] != nil {
		return b.Errors[key]
	}
	return err
}
