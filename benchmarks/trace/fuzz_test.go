package trace

import (
	"bytes"
	"slices"
	"testing"
)

// FuzzReaders checks what every reader promises: it ends, it stops when told to, and a
// partial read gives the beginning of the whole.
func FuzzReaders(f *testing.F) {
	for _, seed := range []string{"", "\x00\x00\x00\x07\x00", "10 3 0 1\n5 1", "x\ny\n", "1 x 100\n", "0,x,16,300,7,get,0\n", "#\n\n,\t \r\n", "1 1048576\n2 1048577"} {
		f.Add([]byte(seed), uint8(3))
	}
	f.Fuzz(func(t *testing.T, content []byte, stop uint8) {
		for format, parse := range formats {
			const most = 1 << 12
			var got, part []Request
			err := parse(bytes.NewReader(content), func(q Request) bool {
				got = append(got, q)
				return len(got) < most
			})
			if format == ".trace" && len(got) < most && len(got) != len(content)/4 {
				t.Errorf("%s: got %d requests of %d bytes", format, len(got), len(content))
			}
			if format != ".lis" && len(got) > len(content) {
				t.Errorf("%s: got %d requests of %d bytes", format, len(got), len(content))
			}
			want := min(len(got), int(stop)+1)
			errPart := parse(bytes.NewReader(content), func(q Request) bool {
				part = append(part, q)
				return len(part) < int(stop)+1
			})
			if !slices.Equal(part, got[:want]) {
				t.Errorf("%s: stopped after %d, got %d requests", format, want, len(part))
			}
			if errPart != nil && err == nil {
				t.Errorf("%s: an error for a part alone: %v", format, errPart)
			}
		}
	})
}
