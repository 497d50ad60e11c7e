package loader

import (
	"fmt"
	"time"
)

// Position is a place in the log of an origin.
type Position uint64

// Transaction is what a committed transaction has changed.
type Transaction struct {
	ID        uint64    // zero: it is visible at once
	End       Position  // behind its commit
	Committed time.Time // by the clock of the server; zero: not known
	Rows      int       // rows, truncations and messages that it brought
	Size      int       // of Changed in memory, in bytes, about
	Changed   map[string]*Changed
}

// Changed is what has changed in one namespace.
type Changed struct {
	Keys  map[string]struct{}
	Flush string // why the whole namespace is to be flushed; "": it is not

	size int // of the keys
}

// MaxChanged is the number of keys of one namespace up to which keys are deleted one by one. More
// are one flush.
const MaxChanged = 10_000

// MaxSize bounds the Size of a transaction: a key beyond it is a flush of its namespace.
const MaxSize = 8 << 20

// What a namespace and a key take beside the key's bytes, about.
const (
	namespaceSize = 512
	keySize       = 64
)

func (t *Transaction) of(namespace string) *Changed {
	if t.Changed == nil {
		t.Changed = map[string]*Changed{}
	}
	c := t.Changed[namespace]
	if c == nil {
		c = &Changed{Keys: map[string]struct{}{}}
		t.Changed[namespace] = c
		t.Size += namespaceSize
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
	n := keySize + len(key)
	if t.Size+n > MaxSize {
		t.Flush(namespace, "keys of more than 8 MiB changed at once")
		return
	}
	c.Keys[key] = struct{}{}
	c.size, t.Size = c.size+n, t.Size+n
}

// Flush notes that any key of a namespace may have changed.
func (t *Transaction) Flush(namespace, why string) {
	c := t.of(namespace)
	if c.Flush == "" {
		c.Flush = why
	}
	t.Size -= c.size
	c.Keys, c.size = nil, 0 // an empty map would keep its room
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
