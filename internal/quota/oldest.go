package quota

import "slices"

// OldestOfMost returns which item, oldest first, makes room for another one: the first of the owner that has the
// most. So an owner that takes many loses its own. It is -1 if there are no items.
func OldestOfMost[T any](items []T, owner func(T) string) int {
	of, most := map[string]int{}, 0
	for _, x := range items {
		of[owner(x)]++
		most = max(most, of[owner(x)])
	}
	return slices.IndexFunc(items, func(x T) bool { return of[owner(x)] == most })
}
