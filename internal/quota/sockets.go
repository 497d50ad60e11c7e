package quota

// TakeSocket charges n bytes of the kernel's memory, of which sockets may have a part of the
// budget. They cannot be taken back before the peer reads. So the last eighth of the part is
// for tenants that use less than their share of the rest.
func (a *Account) TakeSocket(n int64) bool {
	if a == nil {
		return true
	}
	b := a.budget
	most := b.max / SocketsPart
	free, tenant := most-most/8, a.up.up
	of := b.used[ForSockets].Load() + n
	if of <= free || of <= most && tenant.Used()+n <= free/max(1, b.root.holders[memory].Load()) {
		a.Force(ForSockets, n)
		if b.used[ForSockets].Load() <= most {
			return true
		}
		a.Give(ForSockets, n)
	}
	return false
}

// SocketsPart is the part of a Budget that sockets may have: one in so many.
const SocketsPart = 4
