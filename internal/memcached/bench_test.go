package memcached

import (
	"testing"
	"unsafe"
)

func BenchmarkParse(b *testing.B) {
	b.Logf("fields: %d bytes", unsafe.Sizeof(fields{}))
	for _, bench := range []struct{ name, request string }{
		{"get", "get key:000000000001\r\n"},
		{"mg", "mg key:000000000001 v\r\n"},
		{"set", "set key:000000000001 0 0 100\r\n" + string(make([]byte, 100)) + "\r\n"},
		{"ms", "ms key:000000000001 100\r\n" + string(make([]byte, 100)) + "\r\n"},
	} {
		b.Run(bench.name, func(b *testing.B) {
			request := []byte(bench.request)
			var c command
			door := upTo(1 << 20)
			for b.Loop() {
				if cut := door.Cut(request, 0, 0); cut.Bad != nil {
					b.Fatal(cut.Bad)
				}
				parse(request, &c)
			}
		})
	}
}
