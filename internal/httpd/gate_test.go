package httpd

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// closes is a connection that says when it is closed.
type closes struct {
	net.Conn
	name string
	all  *[]string
}

func (c *closes) Close() error {
	*c.all = append(*c.all, c.name)
	return nil
}

// TestGate: beyond the bound the user with most connections loses the one that rests longest, or the one that
// began first.
func TestGate(t *testing.T) {
	g := &gate{most: 4}
	conns, closed := map[string]*closes{}, []string{}
	for i, step := range []struct {
		name  string // of a new connection, whose first letter is the user's
		state map[string]http.ConnState
		want  string // what is closed
	}{
		{"a1", nil, ""}, {"b1", nil, ""}, {"a2", nil, ""}, {"a3", nil, ""},
		{"c1", nil, "a1"},
		{"a4", map[string]http.ConnState{"a2": http.StateActive, "a3": http.StateActive}, "a2"},
		{"a5", map[string]http.ConnState{"a4": http.StateActive, "b1": http.StateIdle}, "a3"},
		{"d1", map[string]http.ConnState{"a4": http.StateActive, "a5": http.StateIdle}, "a5"},
		{"e1", map[string]http.ConnState{"b1": http.StateActive, "a4": http.StateActive}, "c1"},
		{"e2", map[string]http.ConnState{"d1": http.StateClosed}, ""},
	} {
		for _, name := range []string{"a2", "a3", "a4", "a5", "b1", "d1"} {
			if s, ok := step.state[name]; ok {
				g.state(conns[name], s)
			}
		}
		c := &closes{name: step.name, all: &closed}
		conns[c.name], closed = c, nil
		g.enter(c, c.name[:1])
		if got := strings.Join(closed, " "); got != step.want || g.len() > 4 {
			t.Fatalf("step %d: closed %q, want %q, of %d", i, got, step.want, g.len())
		}
	}
}

// TestOwnerOfRequest checks that a request knows the owner of its connection, by which the page counts streams.
func TestOwnerOfRequest(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	testenv.Must(t, err)
	g := newGate(ln, 4)
	srv := &http.Server{ConnContext: g.withOwner, ConnState: g.state, Handler: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, ownerOfRequest(r)) })}
	go srv.Serve(g) // ends with Close
	defer srv.Close()
	r, err := http.Get("http://" + ln.Addr().String())
	testenv.Must(t, err)
	defer r.Body.Close()
	got, err := io.ReadAll(r.Body)
	testenv.Must(t, err)
	want := "127.0.0.1"
	if runtime.GOOS == "linux" {
		want = quota.UserTenant(os.Getuid())
	}
	if string(got) != want {
		t.Errorf("the owner of a request is %q, want %q", got, want)
	}
}
