package peers

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/load"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

func TestPlaces(t *testing.T) {
	c := &Cluster{o: Options{Label: "-x"}, bound: time.Second}
	for range 4 {
		if _, err := c.Place(); err != nil {
			t.Fatal(err)
		}
	}
	first := c.Hosts()[:3]
	for _, h := range c.Hosts() {
		p := h.o.Place
		if !slices.Equal(p.Join, []string{first[0].Bind(), first[1].Bind(), first[2].Bind()}) || h.o.Label != "-x-"+h.Node() {
			t.Errorf("%s joins %v, label %q: want the first three hosts, the same for all", h.Node(), p.Join, h.o.Label)
		}
		got := strings.Join(p.flags(), " ")
		want := "--node " + h.Node() + " --bind " + h.Bind() + " --join " + strings.Join(p.Join, ",") + " --max-staleness 1s"
		if got != want {
			t.Errorf("got flags %q, want %q", got, want)
		}
	}
	var none *Place
	if f := none.flags(); f != nil {
		t.Errorf("a sidecar that is alone gets %q", f)
	}
}

func TestFresh(t *testing.T) {
	p := Fresh{load.Sidecar{KeySize: 16}}
	frame := p.Append(nil, 3, 42)
	var q wire.Request
	if err := wire.DecodeRequest(frame[wire.LengthSize:], &q); err != nil {
		t.Fatal(err)
	}
	if q.Op != wire.OpGet || q.Options != wire.Fresh || string(q.Key) != "k000000000000042" {
		t.Errorf("got %s of %q with options %b", q.Op, q.Key, q.Options)
	}
	// The positions in an answer depend on the length of the id.
	plain := p.Sidecar.Append(nil, 3, 42)
	var other wire.Request
	if err := wire.DecodeRequest(plain[wire.LengthSize:], &other); err != nil || other.ID != q.ID {
		t.Errorf("got id %d, want package load's %d, error %v", q.ID, other.ID, err)
	}
}

func TestEchoOfPeers(t *testing.T) {
	o := Options{KeySize: 16, ValueSize: 100}
	get, set := EchoOfPeers(o)
	appGet, appSet := EchoOf(o)
	// The frames between sidecars have an attestation and longer ids.
	if more := get.Frame - appGet.Frame; more < 20 || more > 60 {
		t.Errorf("got a GET of %d bytes between sidecars, an app's is %d", get.Frame, appGet.Frame)
	}
	if more := set.Frame - appSet.Frame; more < 4 || more > 30 {
		t.Errorf("got a SET of %d bytes between sidecars, an app's is %d", set.Frame, appSet.Frame)
	}
}

func TestMemberErrors(t *testing.T) {
	if _, err := StartMember(t.Context(), "varnish", MemberOptions{}); err == nil || !strings.Contains(err.Error(), `no library "varnish"`) {
		t.Errorf("got error %v", err)
	}
}
