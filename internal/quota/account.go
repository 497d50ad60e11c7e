package quota

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// Account counts what one connection holds, or all connections of a process or a tenant: memory, and places of each
// kind. The tenant is a user of this host, a user of another host, or another host itself. A nil account is this
// process, and has no bound.
type Account struct {
	budget  *Budget
	up      *Account
	name    string
	has     [kinds]atomic.Int64
	holders [kinds]atomic.Int64 // accounts below that hold some
	reads   atomic.Int64        // of a connection and of a process: see Reads
	long    atomic.Int64        // of a process: expected length of its next answers, in bytes
	closed  atomic.Bool         // of a connection

	// Administers is set before Acquire for an administrator of the sidecar, whose probes find a connection.
	Administers bool

	// SlotSearchFailedAt belongs to package namespaces: when it last found no namespace without
	// entries whose slot it could free for this connection.
	SlotSearchFailedAt time.Time

	// Under the budget's mu.
	named map[string]*Account   // below, by name
	conns map[*Account]struct{} // below a process
	giver Reclaimer             // of a connection
}

// Open opens the account of a connection, of a link to another host, or of an app of another host.
func (b *Budget) Open(tenant, process string) *Account {
	a := &Account{budget: b}
	b.mu.Lock()
	defer b.mu.Unlock()
	a.joinLocked(tenant, process)
	return a
}

// Serves names the connection that can be made to give the account's memory back.
func (a *Account) Serves(g Reclaimer) {
	a.budget.mu.Lock()
	defer a.budget.mu.Unlock()
	a.giver = g
}

func (a *Account) joinLocked(tenant, process string) {
	p := a.budget.root.below(tenant).below(process)
	if p.conns == nil {
		p.conns = map[*Account]struct{}{}
		p.long.Store(firstAnswers)
	}
	p.conns[a] = struct{}{}
	a.up = p
}

func (a *Account) below(name string) *Account {
	n := a.named[name]
	if n == nil {
		n = &Account{budget: a.budget, up: a, name: name}
		if a.named == nil {
			a.named = map[string]*Account{}
		}
		a.named[name] = n
	}
	return n
}

// Move moves the account to another tenant. The account must not be used meanwhile, and has no places.
func (a *Account) Move(tenant, process string) {
	if a == nil {
		return
	}
	a.budget.mu.Lock()
	defer a.budget.mu.Unlock()
	n := a.Used()
	a.add(memory, -n)
	delete(a.up.conns, a)
	a.up.pruneLocked()
	a.joinLocked(tenant, process)
	a.add(memory, n)
}

// Close closes the account, which must not use memory any more. It keeps its places until they are
// released: names and tokens outlive the connection that has brought them.
func (a *Account) Close() {
	if a == nil {
		return
	}
	a.budget.mu.Lock()
	defer a.budget.mu.Unlock()
	a.closed.Store(true)
	delete(a.up.conns, a)
	a.up.pruneLocked()
}

// pruneLocked takes a process or a tenant out of the tree that has neither connections nor places.
func (a *Account) pruneLocked() {
	if a.up == nil || len(a.conns) > 0 || len(a.named) > 0 || a.up.named[a.name] != a || !a.Idle() {
		return
	}
	delete(a.up.named, a.name)
	a.up.pruneLocked()
}

// add counts n more of a kind at all levels.
func (a *Account) add(r Resource, n int64) {
	if n == 0 {
		return
	}
	for ; a != nil; a = a.up {
		switch now := a.has[r].Add(n); {
		case a.up == nil:
		case now == n:
			a.up.holders[r].Add(1)
		case now == 0:
			a.up.holders[r].Add(-1)
		}
	}
}

// levels are the account's tenant, its process and the account itself.
func (a *Account) levels() [3]*Account { return [...]*Account{a.up.up, a.up, a} }

// shares returns what the account has of a kind at each level.
func (a *Account) shares(r Resource) (shares [3]Share) {
	for i, at := range a.levels() {
		shares[i] = Share{at.has[r].Load(), at.up.holders[r].Load()}
	}
	return shares
}

// fair says whether the account has, with n more bytes, no more than its fair share of some, at one of the
// levels at least: 0 is its tenant's, 1 its process's, 2 its own. The bytes that sent has for an account count as its
// own.
func (a *Account) fair(sent *Sent, n, of int64) (level int64, ok bool) {
	shares := a.shares(memory)
	for i, at := range a.levels() {
		shares[i].Has += sent.of(at) + n
	}
	level = int64(fairLevel(of, shares[:]...))
	return level, level >= 0
}

// Idle says whether the account holds nothing.
func (a *Account) Idle() bool {
	for r := range a.has {
		if a.has[r].Load() != 0 {
			return false
		}
	}
	return true
}

// Process returns the account of the process above a connection's account.
func (a *Account) Process() *Account {
	if a == nil {
		return nil
	}
	return a.up
}

// Ended says whether the account of a connection is closed.
func (a *Account) Ended() bool { return a.closed.Load() }

// Tenant returns the name of the account's tenant; "" is this process.
func (a *Account) Tenant() string {
	if a == nil {
		return ""
	}
	return a.up.up.name
}

// Names returns the names of the account's tenant and process; both are "" for this process.
func (a *Account) Names() (tenant, process string) {
	if a == nil {
		return "", ""
	}
	return a.up.up.name, a.up.name
}

// Used returns the memory that the account uses, in bytes.
func (a *Account) Used() int64 {
	if a == nil {
		return 0
	}
	return a.has[memory].Load()
}

// holds says how much of a kind the tenant, the process and the connection have.
func (a *Account) holds(r Resource, shown func(int64) string) string {
	process, tenant := a.up, a.up.up
	of := ""
	if process.name != "" {
		of = fmt.Sprintf(", %s of it %s", process.name, shown(process.has[r].Load()))
	}
	return fmt.Sprintf("%s holds %s%s, this connection %s",
		tenant.name, shown(tenant.has[r].Load()), of, shown(a.has[r].Load()))
}

type accountKey struct{}

// WithAccount returns a context of what is done on behalf of an account.
func WithAccount(ctx context.Context, a *Account) context.Context {
	if a == nil {
		return ctx
	}
	return context.WithValue(ctx, accountKey{}, a)
}

// AccountOf returns the account on whose behalf something is done, or nil.
func AccountOf(ctx context.Context) *Account {
	a, _ := ctx.Value(accountKey{}).(*Account)
	return a
}
