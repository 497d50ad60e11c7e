package namespaces

import "context"

// KeyForms returns regular expressions: a key that is loaded or filled in a namespace matches all of them.
func (n *Table) KeyForms(ctx context.Context, name string) (forms []string, err error) {
	ns := n.All()[name]
	switch {
	case ns == nil:
		return nil, nil
	case ns.Origin != nil && ns.Origin.enter():
		defer ns.Origin.leave()
		return ns.Origin.KeyForms(ctx)
	case ns.Keys.Pattern() != "":
		forms = append(forms, ns.Keys.Pattern())
	}
	return forms, nil
}
