package loader

import (
	"cmp"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// MaxConnAge is how long a connection to an origin is used, less up to a tenth. It is longer than most
// names' TTLs, and short beside a person's patience; one connection a minute costs a server little.
const MaxConnAge = time.Minute

// Terms bounds how long the connections of a pool are used. A connection stays with the server that it
// was made to, while the server's name may lead to another one: after a failover the old server often
// goes on answering, as a replica. So a connection's term ends with its age, and all terms end once a
// server says that it is not the one. The next connection looks the name up again.
type Terms struct {
	MaxAge time.Duration // zero: one minute
	ended  atomic.Uint64 // how many times all terms were ended
}

// Term is the term of one connection.
type Term struct {
	number uint64
	until  time.Time
}

// Begin returns the term of a connection that is made after the call.
func (t *Terms) Begin() Term {
	age := cmp.Or(t.MaxAge, MaxConnAge)
	return Term{t.ended.Load(), time.Now().Add(age - rand.N(max(age/10, 1)))}
}

// End ends the terms of all connections that were made no later than the one of this term.
func (t *Terms) End(of Term) { t.ended.CompareAndSwap(of.number, of.number+1) }

// Over reports whether the connection of this term must not be used again.
func (t *Terms) Over(of Term) bool {
	return t.ended.Load() != of.number || !time.Now().Before(of.until)
}
