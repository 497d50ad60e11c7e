package loader

import (
	"fmt"
	"strings"
	"testing"
)

// TestTransactionSize checks that long keys of many namespaces end as flushes, that Size is what is left, and that
// a flush keeps no room for keys.
func TestTransactionSize(t *testing.T) {
	m, most := &Transaction{}, 0
	for i := range 40_000 {
		m.Delete(fmt.Sprint("n", i%8), fmt.Sprint(i, strings.Repeat("k", 1000)))
		most = max(most, m.Size)
	}
	size, flushed := 0, 0
	for _, c := range m.Changed {
		size += namespaceSize
		for key := range c.Keys {
			size += keySize + len(key)
		}
		if c.Flush != "" && c.Keys == nil {
			flushed++
		}
	}
	if most > MaxSize || m.Size != size || flushed == 0 {
		t.Errorf("at most %d bytes, %d noted of %d, %d of %d namespaces are flushed", most, m.Size, size, flushed, len(m.Changed))
	}
	all := &Transaction{}
	all.Join(m)
	if all.Size != m.Size || len(all.Changed) != len(m.Changed) {
		t.Errorf("joined: %d bytes of %d namespaces, want %d and %d", all.Size, len(all.Changed), m.Size, len(m.Changed))
	}
}
