package namespaces

import "github.com/cachesidecar/cachesidecar/internal/kv"

// SetLate notes that a feed of changes tells of changes of some namespaces too late, or in time again.
// While one of its feeds is late, nothing of a namespace is admitted, and what is stored of it by now is
// held back. It returns the slots of those for which that begins.
func (n *Table) SetLate(names []string, late bool) (begun []kv.NamespaceID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range names {
		if late {
			n.late[name]++
		} else {
			n.late[name]--
		}
		switch ns := n.All()[name]; {
		case ns == nil: // see takeSlot
		case late && n.late[name] == 1:
			n.holdBack(ns.ID)
			begun = append(begun, ns.ID)
		case !late && n.late[name] == 0:
			n.Store.Resume(ns.ID)
			n.Ledger.Close(ns.ID, false)
		}
	}
	return begun
}
