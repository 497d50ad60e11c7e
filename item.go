package cachesidecar

import "time"

// Item is the result of a read.
type Item struct {
	Value   []byte        // belongs to the caller
	Flags   uint32        // as set by the writer
	Version uint64        // for CompareAndSwap; a newer value has a higher one
	TTL     time.Duration // remaining; zero: no expiry
	// Source says which tier has answered: near, l1, l2, peer, origin, or load (the
	// function of a GetOrLoad).
	Source string
	// Age is for how long the value may have been outdated, at most, and not how old it is. Of a
	// stale value it is the time since the value's end.
	Age   time.Duration
	Stale bool // a value after its end; only with GetOptions.StaleOK
}

// GetOptions are the options of a read. The zero value reads the nearest copy that is not
// outdated, and loads a missing value if the namespace has an origin.
type GetOptions struct {
	Fresh   bool // ask the key's owner, read no copy
	NoLoad  bool // do not ask the origin
	StaleOK bool // accept a stale value if there is no current one
}

// SetOptions are the options of Set, Add, Replace and CompareAndSwap. The zero value uses
// the namespace's TTL.
type SetOptions struct {
	TTL      time.Duration // 1 ms to 365 days, rounded up to ms; zero: the namespace's
	NoExpiry bool          // in place of a TTL
	Flags    uint32        // the caller's own mark, returned by reads
	AckAll   bool          // return once no host can serve the old value any more
}

// TouchOptions are the options of Touch. The zero value sets the namespace's TTL.
type TouchOptions struct {
	TTL      time.Duration // as in SetOptions
	NoExpiry bool
	AckAll   bool // return once no host can serve the entry with its old TTL any more
}

// IncrOptions are the options of Incr. The zero value adds to a number that exists. The
// number keeps its TTL and its flags.
type IncrOptions struct {
	AckAll bool // return once no host can serve the old number any more

	// Create makes Incr store Initial if the key has no value. TTL and NoExpiry, as in
	// SetOptions, are for this case only.
	Create   bool
	Initial  int64
	TTL      time.Duration
	NoExpiry bool
}

// AppendOptions are the options of Append and Prepend. The zero value adds to a value that
// exists, which keeps its TTL and its flags.
type AppendOptions struct {
	AckAll bool // return once no host can serve the old value any more
	// Create stores the value if the key has none. TTL, NoExpiry and Flags, as in
	// SetOptions, are for this case only.
	Create   bool
	TTL      time.Duration
	NoExpiry bool
	Flags    uint32
}

// UnsignedOptions are the options of IncrUnsigned and DecrUnsigned. The zero value changes a
// number that exists. The number keeps its TTL and its flags.
type UnsignedOptions struct {
	AckAll bool // return once no host can serve the old number any more
	// Create stores Initial if the key has no value. TTL and NoExpiry, as in SetOptions,
	// are for this case only.
	Create   bool
	Initial  uint64
	TTL      time.Duration
	NoExpiry bool
}

// DeleteOptions are the options of Delete and DeleteMulti. The zero value removes the
// values at once.
type DeleteOptions struct {
	AckAll bool // return once no host can serve the old values any more
	Soft   bool // keep the values for GetOptions.StaleOK, for the namespace's stale_limit
	// CacheOnly removes the values from the cache alone, as their expiry would: in a namespace
	// that writes through, the origin keeps its own.
	CacheOnly bool
	// ReplicaLag is the length of the load barrier: values of the keys that are loaded
	// within it are not kept, since they may come from a replica that lags behind. At
	// most the namespace's replica_lag; zero: that replica_lag.
	ReplicaLag time.Duration
}

// FlushOptions are the options of Flush. The zero value empties one namespace on every host.
type FlushOptions struct {
	All   bool // every namespace
	Local bool // on this host alone: entries that other hosts own stay
}
