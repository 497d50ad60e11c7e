package cachesidecar

import "reflect"

// Total adds up the numbers of all hosts, and those of each namespace over all hosts.
// Times, lists of other things and texts are left out.
func (c *ClusterStats) Total() (t Stats) {
	for i := range c.Nodes {
		add(reflect.ValueOf(&t).Elem(), reflect.ValueOf(&c.Nodes[i]).Elem())
	}
	return t
}

// Total adds up the numbers of all namespaces. Times and texts are left out.
func (st *Stats) Total() (t NamespaceStats) {
	for i := range st.Namespaces {
		add(reflect.ValueOf(&t).Elem(), reflect.ValueOf(&st.Namespaces[i]).Elem())
	}
	return t
}

// Add adds the counts of a part of the store.
func (counts *L2Counts) Add(o *L2Counts) {
	add(reflect.ValueOf(counts).Elem(), reflect.ValueOf(o).Elem())
}

// add adds the numbers of one struct to those of another one of the same type. It adds
// elements of lists to the element of the same label.
func add(to, from reflect.Value) {
	for i := range to.NumField() {
		if to.Type().Field(i).Tag.Get("sum") == "-" {
			continue
		}
		switch a, b := to.Field(i), from.Field(i); a.Kind() {
		case reflect.Int, reflect.Int64:
			a.SetInt(a.Int() + b.Int())
		case reflect.Struct:
			add(a, b)
		case reflect.Slice:
			for j := range b.Len() {
				add(element(a, b.Index(j)), b.Index(j))
			}
		}
	}
}

// element returns the element of a list that has the same label as another element. It
// appends one if there is none.
func element(list, like reflect.Value) reflect.Value {
	label := 0
	for like.Type().Field(label).Tag.Get("label") == "" {
		label++
	}
	for i := range list.Len() {
		if list.Index(i).Field(label).String() == like.Field(label).String() {
			return list.Index(i)
		}
	}
	list.Set(reflect.Append(list, reflect.Zero(like.Type())))
	e := list.Index(list.Len() - 1)
	e.Field(label).Set(like.Field(label))
	return e
}
