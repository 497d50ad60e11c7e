package onehost

import (
	"bytes"
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/loader"
)

// Origin is an origin in memory. A call takes effect at one moment within it.
type Origin struct {
	mu      sync.Mutex
	rows    map[string][]byte
	asked   map[string]int
	takes   time.Duration
	writes  time.Duration // zero: takes
	err     error
	commits func(stored bool) error
	lists   error
}

// NewOrigin returns an origin whose calls take some time before that moment, and again
// after it.
func NewOrigin(takes time.Duration) *Origin {
	return &Origin{takes: takes, rows: map[string][]byte{}, asked: map[string]int{}}
}

// ReadOnly returns the origin as the settings of a namespace have it.
func (o *Origin) ReadOnly() loader.Custom { return loader.Custom{Source: o} }

// Writable is ReadOnly for a namespace that writes through.
func (o *Origin) Writable() loader.Custom { return loader.Custom{Source: o, Writer: o} }

func (o *Origin) with(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
}

// Put gives a key a value; nil: none.
func (o *Origin) Put(key string, value []byte) { o.with(func() { o.rows[key] = value }) }

// Row returns the value of a key.
func (o *Origin) Row(key string) (value string) {
	o.with(func() { value = string(o.rows[key]) })
	return value
}

// Fail has loads fail; nil: they do not.
func (o *Origin) Fail(err error) { o.with(func() { o.err = err }) }

// FailLists has listings of the keys fail at their end; nil: they do not.
func (o *Origin) FailLists(err error) { o.with(func() { o.lists = err }) }

// Takes changes how long calls take before their moment, and after it.
func (o *Origin) Takes(d time.Duration) { o.with(func() { o.takes = d }) }

// TakesToWrite changes it for writes; zero: as long as loads.
func (o *Origin) TakesToWrite(d time.Duration) { o.with(func() { o.writes = d }) }

// Commits has f called by each write: before the moment at which it takes effect, and with
// stored after it. An error ends the write.
func (o *Origin) Commits(f func(stored bool) error) { o.with(func() { o.commits = f }) }

// Asked returns how often a key was loaded.
func (o *Origin) Asked(key string) (n int) {
	o.with(func() { n = o.asked[key] })
	return n
}

// wait waits as long as a half of a call takes.
func (o *Origin) wait(ctx context.Context, write bool) error {
	var takes time.Duration
	o.with(func() {
		if takes = o.takes; write {
			takes = cmp.Or(o.writes, takes)
		}
	})
	select {
	case <-time.After(takes):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Load returns the value of a key.
func (o *Origin) Load(ctx context.Context, key []byte) (v loader.Value, err error) {
	if err := o.wait(ctx, false); err != nil {
		return v, err
	}
	o.with(func() {
		o.asked[string(key)]++
		v.Bytes, err = o.rows[string(key)], o.err
	})
	if err == nil {
		err = o.wait(ctx, false)
	}
	if err == nil && v.Bytes == nil {
		err = loader.ErrAbsent
	}
	return v, err
}

// Store stores a value.
func (o *Origin) Store(ctx context.Context, key []byte, v loader.Value) error {
	return o.commit(ctx, string(key), bytes.Clone(v.Bytes))
}

// Delete deletes a value.
func (o *Origin) Delete(ctx context.Context, key []byte) error {
	return o.commit(ctx, string(key), nil)
}

func (o *Origin) commit(ctx context.Context, key string, value []byte) error {
	var commits func(bool) error
	o.with(func() { commits = o.commits })
	for _, stored := range []bool{false, true} {
		if err := o.wait(ctx, true); err != nil {
			return err
		}
		if commits != nil {
			if err := commits(stored); err != nil {
				return err
			}
		}
		if !stored {
			o.Put(key, value)
		}
	}
	return nil
}

// Keys lists the keys that have a value.
func (o *Origin) Keys(ctx context.Context, each func(key []byte) error) error {
	var keys []string
	o.with(func() {
		for key, value := range o.rows {
			if value != nil {
				keys = append(keys, key)
			}
		}
	})
	for _, key := range keys {
		if err := each([]byte(key)); err != nil {
			return err
		}
	}
	if err := o.wait(ctx, false); err != nil {
		return err
	}
	var err error
	o.with(func() { err = o.lists })
	return err
}
