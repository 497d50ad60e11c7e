package peers

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func TestOrigin(t *testing.T) {
	o, err := StartOrigin(0, 0, []byte("v"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Down)
	url := o.URL()
	get := func(key string) (string, error) {
		r, err := http.Get(strings.Replace(url, "{key}", key, 1))
		if err != nil {
			return "", err
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		return string(b), err
	}
	begun := testenv.Date()
	for _, key := range []string{"a", "b", "a"} {
		if v, err := get(key); err != nil || v != "v" {
			t.Fatalf("got %q, %v", v, err)
		}
	}
	if a, b := o.Calls("a"), o.Calls("b"); a != 2 || b != 1 {
		t.Errorf("got %d and %d calls, want 2 and 1", a, b)
	}
	if all, _ := o.Since(begun, testenv.Date()); all != 3 {
		t.Errorf("got %d calls, want 3", all)
	}
	o.Down()
	if v, err := get("a"); err == nil {
		t.Errorf("got %q while it is down", v)
	}
	if err := o.Up(); err != nil {
		t.Fatal(err)
	}
	if v, err := get("a"); err != nil || o.URL() != url {
		t.Errorf("got %q, %v at %s, want it at %s again", v, err, o.URL(), url)
	}
}

// TestOriginBusiest checks that the busiest second may begin at any moment, and includes
// only calls within the given time.
func TestOriginBusiest(t *testing.T) {
	first := time.Unix(1000, 0)
	o := &Origin{}
	for _, ms := range []int{0, 100, 200, 300, 1900, 2100, 2200, 5000} {
		o.at = append(o.at, first.Add(time.Duration(ms)*time.Millisecond))
	}
	for _, c := range []struct {
		from, to     int // ms
		all, busiest int64
	}{{0, 6000, 8, 4}, {200, 6000, 6, 3}, {1901, 2150, 1, 1}, {3000, 4000, 0, 0}, {0, 0, 1, 1}} {
		all, busiest := o.Since(first.Add(time.Duration(c.from)*time.Millisecond), first.Add(time.Duration(c.to)*time.Millisecond))
		if all != c.all || busiest != c.busiest {
			t.Errorf("%d to %d ms: got %d, at most %d in a second, want %d and %d", c.from, c.to, all, busiest, c.all, c.busiest)
		}
	}
}
