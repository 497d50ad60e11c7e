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
//
// All terms end at most once a second. A server may go on saying it of some requests, as Redis does of writes
// without enough replicas: loads keep their connections then.
type Terms struct {
	MaxAge  time.Duration             // zero: one minute
	ended   atomic.Uint64             // how many times all terms were ended
	endedAt atomic.Pointer[time.Time] // the last time
}

const endEvery = time.Second

// Term is the term of one connection.
type Term struct {
	number uint64
	until  time.Time
}

// Begin returns the term of a connection that is made after the call.
func (terms *Terms) Begin() Term {
	age := cmp.Or(terms.MaxAge, MaxConnAge)
	return Term{terms.ended.Load(), time.Now().Add(age - rand.N(max(age/10, 1)))}
}

// End ends the terms of all connections that were made no later than the one of this term. It reports whether
// it has done so.
func (terms *Terms) End(of Term) bool {
	now, last := time.Now(), terms.endedAt.Load()
	if last != nil && now.Sub(*last) < endEvery || !terms.ended.CompareAndSwap(of.number, of.number+1) {
		return false
	}
	terms.endedAt.Store(&now)
	return true
}

// Over reports whether the connection of this term must not be used again.
func (terms *Terms) Over(of Term) bool {
	return terms.ended.Load() != of.number || !time.Now().Before(of.until)
}
