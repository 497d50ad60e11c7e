package memcached_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/doors"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// withNames has the settings of a host with namespaces of these names, beside the default one.
func withNames(names ...string) onehost.Config {
	all := map[string]namespaces.Settings{namespaces.Default: onehost.Settings()}
	for _, name := range names {
		all[name] = onehost.Settings()
	}
	return onehost.Config{Namespaces: all}
}

// TestTextKeyNamesNamespace checks which value a key names, by what stands before its first
// delimiter.
func TestTextKeyNamesNamespace(t *testing.T) {
	h := doors.Serve(t, withNames("pages", "users"))
	c := h.Text()
	for _, tc := range []struct{ key, namespace, rest string }{
		{"42", namespaces.Default, "42"},
		{"pages/42", namespaces.Default, "pages/42"},
		{"pages:42", "pages", "42"},
		{"users:42", "users", "42"},
		{"pages:42:title", "pages", "42:title"},
		{"pages::", "pages", ":"},
		{"default:42", namespaces.Default, "42"},
	} {
		c.Ask(fmt.Sprintf("set %s 0 0 %d\r\n%s", tc.key, len(tc.key), tc.key), "STORED")
		r := h.Do(wire.Request{Op: wire.OpGet, Namespace: []byte(tc.namespace), Key: []byte(tc.rest)})
		onehost.Is(t, tc.key, r, wire.OK, tc.key)
		c.Ask("get "+tc.key, fmt.Sprintf("VALUE %s 0 %d", tc.key, len(tc.key)), tc.key, "END")
	}
}

// TestTextUnknownNamespace gives each command keys whose prefix names no namespace. Each is refused
// with the prefix and what to do, also beside other keys; nothing is done, and the next command
// is understood.
func TestTextUnknownNamespace(t *testing.T) {
	h := doors.Serve(t, withNames("pages"))
	c := h.Text()
	const refused = "CLIENT_ERROR "
	long := strings.Repeat("x", h.Config.MaxValue+1)
	for _, tc := range []struct{ command, want string }{
		{"get K", refused}, {"gets K", refused}, {"get K a", refused},
		{"get a K", "VALUE a 0 1|x|" + refused}, {"get a pages:a K b", "VALUE a 0 1|x|VALUE pages:a 0 1|y|" + refused},
		{"gat 100 K", refused}, {"gats 100 K a", refused}, {"gat -1 K", refused}, {"gat 100 a K a", "VALUE a 0 1|x|" + refused},
		{"mg K v", refused}, {"mg K v q", refused}, {"mg K v N30", refused}, {"mg K T-1", refused}, {"mg K h t", refused},
		{"me K", refused},
		{"set K 0 0 7\r\nget a\r\n", refused}, {"set K 0 -1 1\r\nx", refused}, {"set K 0 0 1 noreply\r\nx", ""},
		{"add K 0 0 1\r\nx", refused}, {"add K 0 -1 1\r\nx", refused}, {"replace K 0 0 1\r\nx", refused},
		{"append K 0 0 1\r\nx", refused}, {"prepend K 0 0 1\r\nx", refused}, {"cas K 0 0 1 5\r\nx", refused},
		{"ms K 1\r\nx", refused}, {"ms K 1 q\r\nx", refused}, {"ms K 7 I C5\r\nget a\r\n", refused},
		{"set K 0 0 " + fmt.Sprint(len(long)) + "\r\n" + long, "SERVER_ERROR object too large for cache|"},
		{"delete K", refused}, {"delete K noreply", ""}, {"md K", refused}, {"md K q I T30", refused},
		{"incr K 1", refused}, {"decr K 1", refused}, {"incr K 1 noreply", ""}, {"ma K N0", refused},
		{"touch K 100", refused}, {"touch K -1", refused}, {"touch K 1 noreply", ""},
	} {
		for key, names := range map[string]string{"other:k": `"other"`, ":k": `""`, "pages:": `"pages:"`, "PAGES:k": `"PAGES"`} {
			c.Ask("set a 0 0 1\r\nx\r\nset pages:a 0 0 1\r\ny", "STORED", "STORED")
			h.Do(wire.Request{Op: wire.OpSet, Key: []byte(key), Value: []byte("5")}) // as an app of the socket may
			version := h.Get(key, 0).Version
			command := strings.ReplaceAll(tc.command, "K", key)
			c.Send(command + "\r\nmn\r\n")
			got := c.UntilNoop()
			before, ok := strings.CutSuffix(tc.want, refused)
			if said, found := strings.CutPrefix(got, tc.want); !found || !ok && said != "" ||
				ok && (!strings.Contains(said, names) || strings.Count(got, "|") != strings.Count(before, "|")+1) {
				t.Errorf("%.40q: %.200q, want %q with %s", command, got, tc.want, names)
			}
			if r := h.Get(key, 0); r.Version != version || string(r.Value) != "5" || r.TTLMS != 0 {
				t.Errorf("%.40q: the key of the default namespace has %s %q, ttl %d", command, r.Status, r.Value, r.TTLMS)
			}
			c.Ask("get a", "VALUE a 0 1", "x", "END")
		}
	}
	c.Send("mg b3RoZXI6aw== v b\r\nmn\r\n") // other:k
	if got := c.UntilNoop(); !strings.HasPrefix(got, refused) || !strings.Contains(got, `"other"`) {
		t.Errorf("a key in base64: %q", got)
	}
	c.Ask("flush_all\r\nget a", "OK", "END")
}
