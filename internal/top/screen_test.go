package top

import "testing"

func TestSingleKeys(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "q": "q", "re": "re", "\x1b": "", "\x1b[A": "", "\x1b[Ae": "e", "r\x1bOPq": "rq", "\x1b[15~q": "q", "\x1bq": "", "\x1b[": "", "\x03": "\x03",
	} {
		if got := string(singleKeys([]byte(in))); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
