package wire

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"

	"github.com/vmihailenco/msgpack/v5"
)

var update = flag.Bool("update", false, "rewrite testdata/messages.json")

// golden is an entry of testdata/messages.json: the array of the frame as JSON, in which
// {"bin": hex} is a msgpack bin, and the bytes of the frame, with its length.
type golden struct {
	Name    string `json:"name"`
	Op      string `json:"op"`
	Kind    string `json:"kind"` // request or answer
	Message any    `json:"message"`
	Hex     string `json:"hex"`
	request *Request
	reply   *Reply
}

func opsByName() map[string]Op {
	m := map[string]Op{}
	for o := range OpCount {
		if o.Known() {
			m[o.String()] = o
		}
	}
	return m
}

func body(v any) []byte {
	b := MarshalBody(v)
	return b
}

// messages returns the golden messages: at least one of each kind.
func messages() []golden {
	ns, key, value := []byte("users"), []byte("user:42"), []byte("Ada")
	request := func(name string, r Request) golden {
		r.ID, r.TimeoutMS = 7, 1000
		if r.TTLMS == 0 {
			r.TTLMS = TTLDefault
		}
		return golden{Name: name, Op: r.Op.String(), Kind: "request", request: &r}
	}
	reply := func(name string, op Op, r Reply) golden {
		r.ID = 7
		return golden{Name: name, Op: op.String(), Kind: "answer", reply: &r}
	}
	withBody := func(name string, op Op, v any) golden {
		return reply(name, op, Reply{Body: body(v)})
	}
	hit := Reply{Value: value, Attributes: kv.Attributes{Flags: 1}, Version: 7148934231982080001, TTLMS: 59_000, Source: SourceL2, AgeMS: 0}
	vouched := hit
	vouched.Attested, vouched.AsOf, vouched.Owner, vouched.Epoch = true, 7148934231982080777, []byte("host-a"), 12345
	stale := hit
	stale.Status, stale.Source, stale.AgeMS = Stale, SourceOrigin, 4000
	long := hit
	long.Value = bytes.Repeat([]byte("x"), 300)
	ask := func(op Op, v any) golden {
		return request(strings.ToLower(op.String()), Request{Op: op, Body: body(v)})
	}
	process := kv.Process{Node: "host-a", Epoch: 99}
	ballot := kv.Ballot{Clock: 1 << 50, Process: process}
	promise := Promise{Ballot: ballot, Partitions: []byte{1, 0, 0, 128}}
	events := testEvents()
	floors := []Floor{{Namespace: "users", Version: 5, AgeMS: 70_000}, {Version: 4}}
	poll := Poll{State: 3, Joined: true, In: true, Weight: 256, Leased: true, Ballots: []Promise{promise}, Next: 7, Have: 6, WallMS: 1_700_000_000_000, Clock: 1 << 60, Cannot: []kv.NodeID{"host-b"}, Head: 44, BootNS: 86_400_000_000_123, Others: []Standing{{Process: kv.Process{Node: "host-c", Epoch: 9}, State: 2, Weight: 64, In: true}}, OthersAt: 5, OthersHave: 4, Settings: 1<<63 + 5}
	greeting := PeerHello{MinVersion: 1, MaxVersion: 1, Cluster: "prod", From: process, Purpose: "poll", Settings: map[string]string{"max_staleness": "2s"}, WallMS: 1_700_000_000_000, Clock: 1 << 60, Floors: floors}
	entry := Entry{Namespace: "users", Key: key, Value: value, Flags: 1, Version: 1 << 60, TTLMS: 1000, Hits: 3}
	none := Entry{Namespace: "users", Key: key, Version: 1 << 60, TTLMS: 1000, Absent: true}
	defaults := Request{Op: OpGet, Key: key}
	set := Request{Op: OpSet, Namespace: ns, Key: key, Value: value}
	full := set
	full.TTLMS, full.Flags, full.Mode, full.Compare, full.Options = 60_000, 1, ModeCAS, 7148934231982080001, AckAll
	ends := func(r Request) Request { // the caller gives up at that time
		r.UntilNS = 86_401_234_567_890
		return r
	}
	return []golden{
		request("hello", Request{Op: OpHello, Hello: Hello{Versions: []int{1}, Client: "billing", Token: "s3cret", Namespace: "users"}}),
		request("ping", Request{Op: OpPing}),
		request("get with the connection's namespace", defaults),
		request("get", Request{Op: OpGet, Namespace: ns, Key: key, Options: Fresh | NoLoad}),
		request("get of an app of another host", Request{Op: OpGet, Namespace: ns, Key: key, By: 1001<<32 | 4711}),
		request("mget", Request{Op: OpMGet, Namespace: ns, Keys: [][]byte{key, []byte("user:43")}, Options: StaleOK}),
		request("set", set),
		request("set if the version is still the same", full),
		request("delete", Request{Op: OpDelete, Namespace: ns, Keys: [][]byte{key}}),
		request("delete, kept as stale, with a hold", Request{Op: OpDelete, Namespace: ns, Keys: [][]byte{key}, Options: Soft | AckAll, ReplicaLagMS: 500}),
		request("touch", Request{Op: OpTouch, Namespace: ns, Key: key, TTLMS: 60_000}),
		request("incr", Request{Op: OpIncr, Namespace: ns, Key: key, Delta: -5}),
		request("incr without an initial value, with a TTL", Request{Op: OpIncr, Namespace: ns, Key: key, Delta: 1, TTLMS: 1000, Options: AckAll}),
		request("incr with an initial value", Request{Op: OpIncr, Namespace: ns, Key: key, Delta: 1, Create: true, Initial: 10, TTLMS: 1000}),
		request("set, given up at a moment", ends(set)),
		request("set if the version is still the same, given up at a moment", ends(full)),
		request("delete, given up at a moment", ends(Request{Op: OpDelete, Namespace: ns, Keys: [][]byte{key}})),
		request("touch, given up at a moment", ends(Request{Op: OpTouch, Namespace: ns, Key: key, TTLMS: 60_000})),
		request("incr, given up at a moment", ends(Request{Op: OpIncr, Namespace: ns, Key: key, Delta: -5})),
		request("fill, given up at a moment", ends(Request{Op: OpFill, Namespace: ns, Key: key, Token: []byte{1, 2, 3}, Value: value})),
		request("lease", Request{Op: OpLease, Namespace: ns, Key: key, Options: StaleOK}),
		request("fill", Request{Op: OpFill, Namespace: ns, Key: key, Token: []byte{1, 2, 3}, Value: value, Attributes: kv.Attributes{Flags: 1}}),
		request("fill with an empty value that expires", Request{Op: OpFill, Namespace: ns, Key: key, Token: []byte{1, 2, 3}, Value: []byte{}, TTLMS: 60_000}),
		request("fill: the token is given back", Request{Op: OpFill, Namespace: ns, Key: key, Token: []byte{1, 2, 3}, Options: Abandon}),
		request("flush a namespace in the cluster", Request{Op: OpFlush, Namespace: ns, Options: Cluster}),
		request("flush everything on this host", Request{Op: OpFlush, Options: All}),
		request("stats", Request{Op: OpStats}),
		request("members", Request{Op: OpMembers}),
		request("ring", Request{Op: OpRing, Namespace: ns, Key: key}),
		request("watch all from the start", Request{Op: OpWatch, Options: All}),
		request("watch from where it was left", Request{Op: OpWatch, Namespace: ns, Epoch: 99, Seq: 1234, WaitMS: 250}),
		request("verify for ten seconds", Request{Op: OpVerify, WaitMS: 10_000}),
		request("reload", Request{Op: OpReload}),
		request("forget", Request{Op: OpForget, Key: []byte("host-a")}),
		request("keys: the first page", Request{Op: OpKeys, Namespace: ns, Limit: 100}),
		request("keys: the next page, by prefix", Request{Op: OpKeys, Namespace: ns, Key: []byte("user:"), Token: []byte{1, 2, 3}, Limit: 1000}),
		request("hot: the keys of a namespace", Request{Op: OpHot, Namespace: ns, Limit: 5}),
		request("hot: the keys of all namespaces", Request{Op: OpHot, Limit: 20, Options: All}),
		request("drain", Request{Op: OpDrain}),
		request("drain, and end, although no other host takes over", Request{Op: OpDrain, Options: Force | End}),
		request("drain: taken back", Request{Op: OpDrain, Options: Undo}),
		request("leaving", Request{Op: OpLeaving}),
		request("shared", Request{Op: OpShared}),
		request("hits, with keys of some", Request{Op: OpHits, Namespace: ns, Keys: [][]byte{[]byte("a"), []byte("b")}, Hits: Hits{Shared: 30, Absent: 2, Near: 1000}}),
		request("hits, without an answer", Request{Op: OpHits, Namespace: ns, Keys: [][]byte{key}, Hits: Hits{Near: 16}, Options: Quiet}),
		request("hits, of which no key was sampled", Request{Op: OpHits, Hits: Hits{Near: MaxHits}}),
		request("get to be shared", Request{Op: OpGet, Key: []byte("a"), Options: Share}),
		request("hello of a client that speaks a later version too", Request{Op: OpHello, Hello: Hello{Versions: []int{2, 1}, Client: "billing"}}),
		request("set: append, or store if absent", Request{Op: OpSet, Namespace: ns, Key: key, Value: value, Attributes: kv.Attributes{Flags: 1}, Mode: ModeAppend, Options: Create}),
		request("set: prepend if the version is still the same", Request{Op: OpSet, Namespace: ns, Key: key, Value: value, Mode: ModePrepend, Compare: 7148934231982080001}),
		request("set if the version is still the same, a stale one exists", Request{Op: OpSet, Namespace: ns, Key: key, Value: value, Mode: ModeCAS, Compare: 5, Options: StaleOK}),
		request("delete if the version is still the same, kept as stale for a time", Request{Op: OpDelete, Namespace: ns, Keys: [][]byte{key}, Options: Soft, Compare: 7148934231982080001, StaleMS: 30_000}),
		request("delete from the cache alone", Request{Op: OpDelete, Namespace: ns, Keys: [][]byte{key}, Options: CacheOnly}),
		request("incr of unsigned numbers", Request{Op: OpIncr, Namespace: ns, Key: key, Delta: -1, Create: true, Initial: math.MinInt64, TTLMS: 1000, Options: Unsigned | Retouch}),
		request("incr downwards if the version is still the same", Request{Op: OpIncr, Namespace: ns, Key: key, Delta: 1, Options: Unsigned | Down, Compare: 5}),
		request("set: prepend", Request{Op: OpSet, Namespace: ns, Key: key, Value: value, Mode: ModePrepend, Options: AckAll}),
		request("incr of unsigned numbers downwards, with an initial value", Request{Op: OpIncr, Namespace: ns, Key: key, Delta: -1, Create: true, Initial: math.MinInt64, TTLMS: 1000, Options: Unsigned | Down}),
		request("metaget", Request{Op: OpMetaGet, Namespace: ns, Key: key}),
		request("metaget without the value, as no read", Request{Op: OpMetaGet, Key: key, Options: NoValue | Unread | NoLoad}),
		request("metaget and touch, given up at a moment", ends(Request{Op: OpMetaGet, Namespace: ns, Key: key, TTLMS: 60_000, Options: Touch})),
		request("metaget that ends the value", Request{Op: OpMetaGet, Namespace: ns, Key: key, Options: Touch | CacheOnly}),
		request("metaget with a claim", Request{Op: OpMetaGet, Namespace: ns, Key: key, Options: Claim, LeaseMS: 30_000, RenewMS: 5000}),
		request("metaget with a claim, also of an absent key", Request{Op: OpMetaGet, Namespace: ns, Key: key, Options: Claim | Create}),
		request("slow: of all namespaces", Request{Op: OpSlow, Limit: 20, Options: All}),

		ask(OpPeerHello, greeting),
		ask(OpPoll, poll),
		ask(OpAcquire, Acquire{Ballot: ballot, State: 3, Partitions: []byte{3}, Ring: []kv.Process{process}, Clock: 5}),
		ask(OpPull, Pull{Ballot: ballot, Batch: 2, Partitions: []byte{0, 1}}),
		ask(OpFetch, Fetch{Ballot: ballot, Namespace: "users", Key: key}),
		ask(OpGoodbye, Goodbye{From: process}),
		ask(OpFollow, Follow{Applied: 41, WaitMS: 500, Anew: true}),
		ask(OpAuth, Auth{Ownerships: []Promise{{Ballot: ballot, Partitions: []byte{3}}}, Clock: 5}),
		ask(OpApplied, Applied{Partitions: []uint16{0, 16383}}),
		ask(OpProbe, Probe{Key: key, Fresh: true}),
		ask(OpNote, Note{Floor: floors[0], WallMS: 7}),
		ask(OpSettings, AskSettings{Digest: 1<<63 + 5}),
		withBody("peer_hello", OpPeerHello, greeting),
		withBody("poll", OpPoll, poll),
		withBody("acquire", OpAcquire, Acquired{Ballot: ballot, Granted: []byte{3}, Released: []byte{1}, In: []kv.Process{process}, Clock: 5, Head: 44, Voter: true, Authorities: []Promise{{Ballot: ballot, Partitions: []byte{2}}}, Floors: floors, Passed: []byte{4}}),
		withBody("pull", OpPull, Pulled{AsOf: 5, Entries: []Entry{entry, none}, Done: true}),
		withBody("pull: barriers", OpPull, Pulled{Done: true, Barriers: []Barriers{{
			Partitions: []byte{1}, CutMS: 10_312, Keys: AppendAge(nil, 0x1122334455667788, 500), Slots: 1 << 14,
			Floors: AppendAge(nil, 16383, 9_000), Since: AppendAge(nil, 3, 10_000), Emptied: []Emptied{{Namespace: "users", AgeMS: 70}},
			Lags: []Lag{{Namespace: "users", LagMS: 10_000}},
		}}}),
		withBody("fetch", OpFetch, Fetched{AsOf: 5, Found: true, Entry: entry}),
		reply("goodbye", OpGoodbye, Reply{}),
		withBody("follow", OpFollow, Followed{After: 41, To: 46, Events: events, WallMS: 7, Clock: 9, Tell: true}),
		withBody("auth", OpAuth, Authorized{Acknowledged: [][]byte{{3}}, Clock: 6, Floors: floors}),
		withBody("settings", OpSettings, Settings{Names: []string{"audit"}, Of: []SettingsOf{{Of: "namespaces.*", Digests: []byte{1, 2, 3, 4, 5, 6, 7, 8}}}}),
		withBody("note", OpNote, Noted{Clock: 5, WallMS: 7, In: []kv.Process{process}, Voter: true, Owners: []kv.Process{process}}),
		withBody("follow: a reset", OpFollow, Followed{To: 99, WallMS: 7, Clock: 9, Reset: true, Marks: AppendMark(nil, 3, 98, 12), Floors: []Floor{{Namespace: "users", Version: 5}}}),
		withBody("applied", OpApplied, AppliedBy{All: []bool{true, false}}),
		withBody("probe", OpProbe, Probed{Status: 0, Value: value, Source: 1}),

		withBody("hello", OpHello, Welcome{
			Version: 1, Node: "host-a", Server: "0.1.0",
			Limits:   Limits{Key: 1024, Value: 8 << 20, Frame: 8<<20 + FrameSlack, Keys: MaxKeys, InFlight: 1024, TTLMS: MaxTTL, TimeoutMS: 1000},
			Features: []string{"shared"},
			Epoch:    99, Hash: Hashing{Name: HashName, Seed: 5, Partitions: 1 << 14},
		}),
		withBody("hello: the client may say when it gives a write up", OpHello, Welcome{
			Version: 1, Node: "host-a", Server: "0.1.0", Features: []string{"shared"}, Hash: Hashing{Name: HashName, Partitions: 1 << 14},
			Boot: BootClock{ID: "99edf862-e964-4dd3-83ec-32e2bc03c5b1 time:[4026531834]", NowNS: 86_400_234_567_890},
		}),
		withBody("hello, without shared memory", OpHello, Welcome{
			Version: 1, Node: "host-a", Server: "0.1.0", Features: []string{}, Hash: Hashing{Name: HashName, Partitions: 1 << 14},
		}),
		reply("pong", OpPing, Reply{}),
		reply("hit", OpGet, hit),
		reply("hit with a value of 300 bytes", OpGet, long),
		reply("miss", OpGet, Reply{Status: Miss, Why: NotCached}),
		reply("miss, the owner cannot be reached", OpGet, Reply{Status: Miss, Why: Degraded}),
		reply("miss, the origin says so, vouched", OpGet, Reply{Status: Miss, Why: Absent, Version: 7148934231982080770, TTLMS: 4999, Attested: true, AsOf: 7148934231982080777, Owner: []byte("host-a"), Epoch: 12345}),
		reply("stale", OpGet, stale),
		reply("mget", OpMGet, Reply{Items: []Reply{{Value: value, Version: 1, Source: SourceL1, AgeMS: 12}, {Status: Miss, Why: Absent}, {Status: Busy, Message: []byte("ask again")}}}),
		reply("set", OpSet, Reply{Version: 7148934231982080001}),
		reply("set, but it exists", OpSet, Reply{Status: Exists, Version: 7148934231982080001}),
		reply("delete", OpDelete, Reply{Items: []Reply{{Version: 5}, {Status: Miss, Version: 6}}}),
		reply("touch", OpTouch, Reply{Version: 5, Event: 6}),
		reply("hit, vouched for", OpGet, vouched),
		reply("incr", OpIncr, Reply{Number: -3, Version: 5}),
		reply("incr of an unsigned number that expires", OpIncr, Reply{Number: -1, Unsigned: true, Version: 5, TTLMS: 1000}),
		reply("set: only a stale value exists", OpSet, Reply{Status: Stale, Version: 5}),
		reply("metaget", OpMetaGet, Reply{Value: value, Attributes: kv.Attributes{Flags: 1}, Version: 7148934231982080001, TTLMS: 59_000, Size: 3, Read: true, IdleMS: 1000}),
		reply("metaget without the value, touched", OpMetaGet, Reply{Value: []byte{}, Version: 7148934231982080001, TTLMS: 60_000, Size: 3, IdleMS: 5, Event: 7148934231982080002}),
		reply("metaget: a stale value, and the claim", OpMetaGet, Reply{Status: Stale, Value: value, Version: 5, TTLMS: 1000, Size: 3, Claim: ClaimWon, Number: -2}),
		reply("metaget: a miss", OpMetaGet, Reply{Status: Miss}),
		reply("metaget: a miss, and the claim", OpMetaGet, Reply{Status: Miss, Claim: ClaimWon, Number: 77, TTLMS: 30_000}),
		reply("metaget: a miss, the claim is another's", OpMetaGet, Reply{Status: Miss, Claim: ClaimTaken, Number: 77, TTLMS: 29_000}),
		reply("delete, but it is another version", OpDelete, Reply{Items: []Reply{{Status: Exists, Version: 6}}}),
		reply("incr of no number", OpIncr, Reply{Status: NotStored, Message: []byte("the value is no decimal int64")}),
		reply("lease", OpLease, Reply{Status: Lease, Token: []byte{1, 2, 3}, TTLMS: 5000}),
		reply("lease: hit", OpLease, vouched),
		reply("lease: a stale value, since another loads", OpLease, stale),
		reply("lease: the origin has none", OpLease, Reply{Status: Miss, Why: Absent}),
		reply("lease: another loads for longer than the timeout", OpLease, Reply{Status: Timeout, Message: []byte("somebody else is loading this key")}),
		reply("fill", OpFill, Reply{Version: 5}),
		reply("fill, but the key was invalidated meanwhile", OpFill, Reply{Status: NotStored, Message: []byte("the key was invalidated since the token was issued")}),
		reply("fill: the token is back", OpFill, Reply{}),
		reply("flush", OpFlush, Reply{Version: 5}),
		withBody("stats", OpStats, map[string]int{"entries": 3}),
		withBody("members", OpMembers, []cachesidecar.Member{{Node: "host-a", Address: "10.0.0.1:7947", State: "alive", Epoch: "9f3c"}}),
		withBody("ring", OpRing, cachesidecar.Place{Partition: 77, AssignedOwner: "host-a", Owner: "host-a"}),
		withBody("watch", OpWatch, Watched{Epoch: 99, After: 1231, Seq: 1234, Head: 1240, Events: events, BehindMS: 480}),
		withBody("watch: a heartbeat", OpWatch, Watched{Epoch: 99, After: 1234, Seq: 1234, Head: 1234}),
		withBody("watch: a reset", OpWatch, Watched{Epoch: 99, Seq: 1234, Head: 1234, Reset: true}),
		reply("forget", OpForget, Reply{}),
		withBody("keys", OpKeys, KeysPage{Keys: []KeyInfo{{Key: key, Size: 3, Memory: 48, TTLMS: 59_000, Version: 7148934231982080001}}, Cursor: []byte{1, 2, 3}}),
		withBody("keys: the last page", OpKeys, KeysPage{Keys: []KeyInfo{}}),
		withBody("reload", OpReload, cachesidecar.Changes{
			Changed: []cachesidecar.Change{{Setting: "namespaces.users.default_ttl", From: "default", To: "5m0s"}},
			Restart: []cachesidecar.Change{{Setting: "l2_size", From: "256 MiB", To: "512 MiB"}},
		}),
		withBody("slow", OpSlow, Slow{
			ThresholdMS: 10, WindowMS: 600_000, Loads: []SlowCall{},
			Requests: []SlowCall{{BeganMS: 1_700_000_000_000, TookUS: 250_000, Op: "GET", Namespace: "users", Key: key, Hash: 0x1122334455667788, Keys: 1, Result: "OK", Parts: []SlowPart{{What: "owner", Node: "host-b", TookUS: 249_000}}}},
		}),
		withBody("hot", OpHot, Hot{WindowMS: 57_000, Reads: 6400, Keys: []HotKey{{Namespace: "users", Key: key, Reads: 1600, Share: 0.25}}}),
		withBody("drain", OpDrain, cachesidecar.Drained{Node: "host-a", Partitions: 5461, Entries: 120_000, TookMS: 840}),
		reply("leaving", OpLeaving, Reply{}),
		reply("shared", OpShared, BodyReply(Shared{
			Layout: 1, Size: 32 << 20, ID: 7, Counter: 3, NowNS: 1_000_000_000,
			Path: "/run/cachesidecar/cachesidecar-0123456789abcdef-0000000000000007",
		})),
		reply("hits", OpHits, Reply{}),
		reply("forget: no host knows it", OpForget, Reply{Status: Miss}),
		withBody("verify", OpVerify, cachesidecar.Verified{
			DurationMS: 10_004, BoundMS: 2000, Keys: 8, Writes: 1500, WriteErrors: 1,
			Nodes:     []cachesidecar.VerifiedNode{{Node: "host-a", L1: 900, L2: 800, Peer: 300, Fresh: 200, Misses: 2, Errors: 1, StaleMaxUS: 750}},
			Staleness: []cachesidecar.VerifiedBucket{{UpToMS: 0, Reads: 2100}, {UpToMS: 1, Reads: 100}},
			Checked:   []string{"bound"}, Violations: []string{"text"}, ViolationsTotal: 1, Inconclusive: []string{"text"},
		}),
		reply("error: the origin failed", OpGet, Reply{Status: Origin, Message: []byte("GET http://127.0.0.1:8080/42: 503")}),
		reply("error", OpGet, Reply{Status: BadRequest, Message: []byte("key is missing")}),
	}
}

// plain converts the array of a frame to a value that JSON can show.
func plain(t *testing.T, b []byte) any {
	v, err := msgpack.NewDecoder(bytes.NewReader(b)).DecodeInterface()
	testenv.Must(t, err)
	var show func(any) any
	show = func(v any) any {
		switch v := v.(type) {
		case []byte:
			return map[string]string{"bin": hex.EncodeToString(v)}
		case []any:
			for i := range v {
				v[i] = show(v[i])
			}
		case map[string]any:
			for k := range v {
				v[k] = show(v[k])
			}
		}
		return v
	}
	return show(v)
}

func (g *golden) bytes() []byte {
	if g.request != nil {
		return AppendRequest(nil, g.request)
	}
	return AppendReply(nil, opsByName()[g.Op], g.reply)
}

// TestGolden compares every message with the bytes in testdata, in both directions.
func TestGolden(t *testing.T) {
	const file = "testdata/messages.json"
	want := messages()
	for i := range want {
		frame := want[i].bytes()
		want[i].Hex = hex.EncodeToString(frame)
		want[i].Message = plain(t, frame[LengthSize:])
	}
	if *update {
		b, err := json.MarshalIndent(want, "", "  ")
		testenv.Must(t, err)
		testenv.Must(t, os.WriteFile(file, append(b, '\n'), 0o644))
	}
	b, err := os.ReadFile(file)
	testenv.Must(t, err)
	var held []golden
	testenv.Must(t, json.Unmarshal(b, &held))
	if len(held) != len(want) {
		t.Fatalf("%d messages in %s, %d in the test", len(held), file, len(want))
	}
	seen := map[string]bool{}
	for i, h := range held {
		g := want[i]
		if h.Kind != g.Kind || h.Name != g.Name {
			t.Errorf("message %d is %s %q, testdata has %s %q", i, g.Kind, g.Name, h.Kind, h.Name)
		}
		if h.Hex != g.Hex {
			t.Errorf("%s %q: encodes as\n%s, testdata has\n%s", g.Op, g.Name, g.Hex, h.Hex)
			continue
		}
		frame, err := hex.DecodeString(h.Hex)
		testenv.Must(t, err)
		if n := FrameLength(frame); n != len(frame)-LengthSize {
			t.Errorf("%s %q: length %d, frame of %d", g.Op, g.Name, n, len(frame))
		}
		if err := checkMsgpack(frame[LengthSize:]); err != nil {
			t.Errorf("%s %q: walk: %v", g.Op, g.Name, err)
		}
		op := opsByName()[g.Op]
		if g.request != nil {
			seen["request "+g.Op] = true
			var r Request
			if err := DecodeRequest(frame[LengthSize:], &r); err != nil {
				t.Errorf("%s %q: %v", g.Op, g.Name, err)
			}
			if !sameRequest(&r, g.request) {
				t.Errorf("%s %q: decodes as\n%+v, want\n%+v", g.Op, g.Name, r, *g.request)
			}
			continue
		}
		seen["reply "+g.Op] = true
		var r Reply
		if err := DecodeReply(op, frame[LengthSize:], &r); err != nil {
			t.Errorf("%s %q: %v", g.Op, g.Name, err)
		}
		if !sameReply(&r, g.reply) {
			t.Errorf("%s %q: decodes as\n%+v, want\n%+v", g.Op, g.Name, r, *g.reply)
		}
	}
	for o := range OpCount {
		if !o.Known() {
			continue
		}
		if !seen["request "+o.String()] || !seen["reply "+o.String()] {
			t.Errorf("%s has no golden request or no golden reply", o)
		}
	}
}

func sameRequest(a, b *Request) bool {
	x, y := *a, *b
	if len(x.Keys) == 0 && len(y.Keys) == 0 {
		x.Keys, y.Keys = nil, nil
	}
	return reflect.DeepEqual(x, y)
}

func sameReply(a, b *Reply) bool {
	x, y := *a, *b
	if len(x.Items) == 0 && len(y.Items) == 0 {
		x.Items, y.Items = nil, nil
	}
	return reflect.DeepEqual(x, y)
}

// TestReferenceCodec checks that vmihailenco/msgpack produces the same bytes for every
// golden message.
func TestReferenceCodec(t *testing.T) {
	for _, g := range messages() {
		frame := g.bytes()
		if got := reference(t, frame[LengthSize:]); !bytes.Equal(got, frame[LengthSize:]) {
			t.Errorf("%s %q: %x, the reference codec gives %x", g.Op, g.Name, frame[LengthSize:], got)
		}
	}
}

// reference decodes an array with vmihailenco/msgpack and encodes it again.
func reference(t testing.TB, b []byte) []byte {
	t.Helper()
	r := bytes.NewReader(b)
	d := msgpack.NewDecoder(r)
	v, err := d.DecodeInterface()
	if err != nil {
		t.Fatalf("reference decode of %x: %v", b, err)
	}
	if r.Len() > 0 {
		t.Fatalf("reference decode of %x leaves %d bytes", b, r.Len())
	}
	var buf bytes.Buffer
	e := msgpack.NewEncoder(&buf)
	e.UseCompactInts(true)
	if _, isMap := v.(map[string]any); isMap {
		t.Fatal("a frame is an array")
	}
	testenv.Must(t, referenceEncode(e, v, b))
	return buf.Bytes()
}

// referenceEncode encodes the result of DecodeInterface. DecodeInterface loses the order
// of maps, so referenceEncode copies the raw bytes of maps.
func referenceEncode(e *msgpack.Encoder, v any, raw []byte) error {
	list, ok := v.([]any)
	if !ok {
		return e.Encode(v)
	}
	if err := e.EncodeArrayLen(len(list)); err != nil {
		return err
	}
	_, _, n, _ := readHead(raw)
	head, _, _, _ := readHead(raw)
	rest := raw[head:]
	for i := range int(n) {
		after, err := skipValue(rest, 0)
		if err != nil {
			return err
		}
		element := rest[:len(rest)-len(after)]
		rest = after
		switch x := list[i].(type) {
		case map[string]any:
			err = e.Encode(msgpack.RawMessage(element))
		case []any:
			err = referenceEncode(e, x, element)
		case uint8, uint16, uint32, uint64:
			err = e.EncodeUint(reflect.ValueOf(x).Uint())
		case int8, int16, int32, int64:
			err = e.EncodeInt(reflect.ValueOf(x).Int())
		default:
			err = e.Encode(x)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// TestTruncated cuts every golden frame at every byte. Each cut frame must give an error
// and never a panic.
func TestTruncated(t *testing.T) {
	for _, g := range messages() {
		frame := g.bytes()[LengthSize:]
		for n := range frame {
			// A copy, so that a read past the end is detected.
			cut := bytes.Clone(frame[:n])
			var err error
			if g.request != nil {
				if e := DecodeRequest(cut, &Request{}); e != nil {
					err = e
				}
			} else {
				err = DecodeReply(opsByName()[g.Op], cut, &Reply{})
			}
			if err == nil {
				t.Errorf("%s %q cut to %d of %d bytes is accepted", g.Op, g.Name, n, len(frame))
			}
			if checkMsgpack(cut) == nil {
				t.Errorf("%s %q cut to %d bytes: checkMsgpack accepts it", g.Op, g.Name, n)
			}
		}
	}
}

func TestRefusedRequests(t *testing.T) {
	enc := func(v ...any) []byte {
		var buf bytes.Buffer
		e := msgpack.NewEncoder(&buf)
		e.UseCompactInts(true)
		testenv.Must(t, e.Encode(v))
		return buf.Bytes()
	}
	keys := make([]any, MaxKeys+1)
	for i := range keys {
		keys[i] = "k"
	}
	for _, tc := range []struct {
		name   string
		frame  []byte
		id     uint64
		status Status
		want   string
	}{
		{"empty", nil, 0, BadRequest, "a request is a msgpack array"},
		{"a map", []byte{0x81, 1, 1}, 0, BadRequest, "a request is a msgpack array"},
		{"no elements", []byte{0x90}, 0, BadRequest, "id is missing"},
		{"op 0", enc(9, 0), 9, Unsupported, "op 0 is unknown"},
		{"id of a wrong type", enc("x", 3), 0, BadRequest, "id: want a number"},
		{"op of a wrong type", enc(9, "GET"), 9, BadRequest, "op: want a number"},
		{"unknown op", enc(9, 99), 9, Unsupported, "op 99 is unknown; ops 1 to "},
		{"huge op", enc(9, uint64(1)<<40), 9, Unsupported, "is unknown"},
		{"negative timeout", enc(9, 3, -1, "ns", "k"), 9, BadRequest, "timeout_ms: want a number from 0 to 3600000"},
		{"huge timeout", enc(9, 3, 3600_001, "ns", "k"), 9, BadRequest, "timeout_ms: want a number from 0 to 3600000"},
		{"no key", enc(9, 3, 0, "ns"), 9, BadRequest, "key is missing"},
		{"nil key", enc(9, 3, 0, "ns", nil), 9, BadRequest, "key is missing"},
		{"a number for a key", enc(9, 3, 0, "ns", 5), 9, BadRequest, "key: want bin or str, got int"},
		{"a number for a namespace", enc(9, 3, 0, 5, "k"), 9, BadRequest, "ns: want bin or str"},
		{"too many elements", enc(9, 3, 0, "ns", "k", 0, 1, 2), 9, BadRequest, "GET has 1 elements too many"},
		{"unknown option", enc(9, 3, 0, "ns", "k", 8), 9, BadRequest, "GET knows no option 0x8"},
		{"no value", enc(9, 5, 0, "ns", "k"), 9, BadRequest, "value is missing"},
		{"fill without a value", enc(9, 10, 0, "ns", "k", "token"), 9, BadRequest, "value is missing: give one, or the option abandon"},
		{"fill with a nil for a value", enc(9, 10, 0, "ns", "k", "token", nil, 5), 9, BadRequest, "value is missing"},
		{"fill without a token", enc(9, 10, 0, "ns", "k", nil, "v"), 9, BadRequest, "token is missing"},
		{"abandon where there is no token", enc(9, 9, 0, "ns", "k", 256), 9, BadRequest, "LEASE knows no option 0x100"},
		{"negative ttl", enc(9, 5, 0, "ns", "k", "v", -1), 9, BadRequest, "ttl_ms: want a number from 0 to 31536000000"},
		{"ttl above a year", enc(9, 5, 0, "ns", "k", "v", MaxTTL+1), 9, BadRequest, "ttl_ms: want a number from 0"},
		{"unknown mode", enc(9, 5, 0, "ns", "k", "v", 1, 0, 6), 9, BadRequest, "mode: want a number from 0 to 5"},
		{"flags above 32 bits", enc(9, 5, 0, "ns", "k", "v", 1, uint64(1)<<32), 9, BadRequest, "flags: want a number"},
		{"no keys", enc(9, 4, 0, "ns"), 9, BadRequest, "a list of keys is missing"},
		{"an empty list of keys", enc(9, 4, 0, "ns", []any{}), 9, BadRequest, "an array of 1 to 1024 keys"},
		{"too many keys", enc(9, 4, 0, "ns", keys), 9, BadRequest, "an array of 1 to 1024 keys"},
		{"hits without keys", enc(9, 25, 0, "ns"), 9, BadRequest, "a list of keys is missing"},
		{"hits of too many keys", enc(9, 25, 0, "ns", keys), 9, BadRequest, "an array of 0 to 1024 keys"},
		{"too many hits in shared memory", enc(9, 25, 0, "ns", []any{}, MaxHits+1), 9, BadRequest, "shared: want a number from 0 to 1073741824"},
		{"too many absent keys", enc(9, 25, 0, "ns", []any{}, 0, MaxHits+1), 9, BadRequest, "absent: want a number from 0 to 1073741824"},
		{"too many hits near by", enc(9, 25, 0, "ns", []any{}, 0, 0, uint64(1)<<63), 9, BadRequest, "near: want a number from 0 to 1073741824"},
		{"hits with an option of others", enc(9, 25, 0, "ns", []any{}, 0, 0, 0, 1), 9, BadRequest, "HITS knows no option 0x1"},
		{"hits that are less than none", enc(9, 25, 0, "ns", []any{}, -1), 9, BadRequest, "shared: want a number from 0 to 1073741824"},
		{"a key that is no key", enc(9, 6, 0, "ns", []any{"a", 5}), 9, BadRequest, "key: want bin or str"},
		{"delta of a wrong type", enc(9, 8, 0, "ns", "k", "1"), 9, BadRequest, "delta: want a signed"},
		{"hello without a body", enc(9, 1, 0), 9, BadRequest, "HELLO takes a map"},
		{"hello of a wrong type", enc(9, 1, 0, 5), 9, BadRequest, "HELLO takes a map"},
		{"hello with a long name", enc(9, 1, 0, map[string]any{"client": strings.Repeat("x", 257)}), 9, BadRequest, "client has 257 bytes"},
		{"hello with a long body", enc(9, 1, 0, map[string]any{"x": strings.Repeat("x", 5000)}), 9, BadRequest, "at most 4096"},
		{"bytes after the array", append(enc(9, 2), 0), 9, BadRequest, "1 bytes follow the array"},
	} {
		var r Request
		err := DecodeRequest(tc.frame, &r)
		if err == nil {
			t.Errorf("%s: accepted as %+v", tc.name, r)
			continue
		}
		if err.Status != tc.status || !strings.Contains(err.Message, tc.want) || r.ID != tc.id {
			t.Errorf("%s: id %d, %v; want id %d, %v with %q", tc.name, r.ID, err, tc.id, tc.status, tc.want)
		}
	}
}

func TestCheckMsgpack(t *testing.T) {
	nest := func(b byte, n int) []byte { return append(bytes.Repeat([]byte{b}, n), 0xc0) }
	maps := bytes.Repeat([]byte{0x81, 0xc0}, 17)
	for _, tc := range []struct {
		name string
		b    []byte
		want error
	}{
		{"nil", []byte{0xc0}, nil},
		{"16 arrays", nest(0x91, 16), nil},
		{"17 arrays", nest(0x91, 17), errDepth},
		{"8 MiB of arrays", nest(0x91, 8<<20), errDepth},
		{"17 maps", append(maps, 0xc0), errDepth},
		{"8 MiB of maps as keys", nest(0x81, 8<<20), errDepth},
		{"array 32 with a huge count", []byte{0xdd, 0xff, 0xff, 0xff, 0xff, 0xc0}, errCount},
		{"map 32 with a huge count", []byte{0xdf, 0xff, 0xff, 0xff, 0xff, 0xc0}, errCount},
		{"array 16 short of elements", []byte{0xdc, 0x00, 0x02, 0xc0}, errCount},
		{"8 MiB of array 32 with a huge count", bytes.Repeat([]byte{0xdd, 0x00, 0x10, 0x00, 0x00}, 8<<20/5), errDepth},
		{"bin 32 with a huge length", []byte{0xc6, 0xff, 0xff, 0xff, 0xff, 1}, errShort},
		{"str 8 cut short", []byte{0xd9, 0x02, 'a'}, errShort},
		{"ext 8", []byte{0xc7, 0x02, 0x05, 1, 2}, nil},
		{"fixext 16 cut short", append([]byte{0xd8}, make([]byte, 16)...), errShort},
		{"fixext 16", append([]byte{0xd8}, make([]byte, 17)...), nil},
		{"float 64", append([]byte{0xcb}, make([]byte, 8)...), nil},
		{"0xc1", []byte{0xc1}, errType},
		{"two values", []byte{0xc0, 0xc0}, errRest},
		{"empty array in an array", []byte{0x92, 0x90, 0xc0}, nil},
		{"empty", nil, errShort},
	} {
		if got := checkMsgpack(tc.b); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

// TestForwardCompatible checks that further elements of an answer are skipped.
func TestForwardCompatible(t *testing.T) {
	for _, event := range []uint64{5, 6} {
		frame := AppendReply(nil, OpTouch, &Reply{ID: 7, Version: 5, Event: event})[LengthSize:]
		frame[0]++
		frame = append(frame, body(map[string][]int{"new": {1, 2}})...)
		var r Reply
		if err := DecodeReply(OpTouch, frame, &r); err != nil || r.Version != 5 || r.Event != event {
			t.Errorf("%+v, %v", r, err)
		}
	}
}

// TestOpenValue checks that the functions of the hot path build the same bytes as
// AppendReply.
func TestOpenValue(t *testing.T) {
	for i, n := range []int{0, 1, 255, 256, 65535, 65536, 1 << 20} {
		vouched := i%2 == 1
		r := Reply{ID: 300, Value: bytes.Repeat([]byte{9}, n), Attributes: kv.Attributes{Flags: 5}, Version: 1 << 60, TTLMS: 77, Source: SourceL1, AgeMS: 3}
		if vouched {
			r.Attested, r.AsOf, r.Owner, r.Epoch = true, 1<<50, []byte("host-a"), 77
		}
		want := AppendReply(nil, OpGet, &r)
		got := OpenValue(nil, r.ID, false, vouched)
		value := len(got)
		got = EndFrame(CloseValue(append(got, r.Value...), value, &r), 0)
		if !bytes.Equal(got, want) {
			t.Errorf("value of %d bytes: head %x, want %x", n, got[:20], want[:20])
		}
		want = AppendReply(nil, OpMGet, &Reply{ID: 300, Items: []Reply{r, {Status: Miss}}})
		got = OpenValue(OpenItems(nil, r.ID, 2), 0, true, vouched)
		value = len(got)
		got = CloseValue(append(got, r.Value...), value, &r)
		got = EndFrame(AppendItem(got, OpMGet, &Reply{Status: Miss}), 0)
		if !bytes.Equal(got, want) {
			t.Errorf("item of %d bytes: %x, want %x", n, got[:20], want[:20])
		}
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	value := bytes.Repeat([]byte("v"), 100)
	keys := [][]byte{[]byte("a"), []byte("b"), []byte("c")}
	requests := []*Request{
		{ID: 1 << 40, Op: OpGet, Key: keys[0]},
		{ID: 1 << 40, Op: OpSet, Key: keys[0], Value: value, TTLMS: 1000, Attributes: kv.Attributes{Flags: 1}},
		{ID: 1 << 40, Op: OpMGet, Keys: keys},
		{ID: 1 << 40, Op: OpDelete, Keys: keys},
	}
	replies := []*Reply{
		{ID: 1 << 40, Value: value, Version: 1 << 60, TTLMS: 1000, Source: SourceL2},
		{ID: 1 << 40, Version: 1 << 60},
		{ID: 1 << 40, Items: []Reply{{Value: value, Version: 1}, {Status: Miss}, {Value: value}}},
		{ID: 1 << 40, Items: []Reply{{Version: 1}, {Status: Miss}}},
	}
	buf := make([]byte, 0, 4096)
	var r Request
	var p Reply
	r.Keys = make([][]byte, 0, 8)
	p.Items = make([]Reply, 0, 8)
	for i, q := range requests {
		testenv.Allocates(t, q.Op.String()+" request", 0, 100, func() {
			frame := AppendRequest(buf[:0], q)
			if err := DecodeRequest(frame[LengthSize:], &r); err != nil {
				t.Fatal(err)
			}
		})
		testenv.Allocates(t, q.Op.String()+" reply", 0, 100, func() {
			frame := AppendReply(buf[:0], q.Op, replies[i])
			testenv.Must(t, DecodeReply(q.Op, frame[LengthSize:], &p))
		})
	}
}

// FuzzEvents checks that events and marks from another sidecar are accepted completely
// or not at all.
func FuzzEvents(f *testing.F) {
	e := testEvents()
	f.Add(e.Packed, byte(len(e.Details)))
	f.Add([]byte{}, byte(0))
	f.Add(make([]byte, 18), byte(1))
	f.Fuzz(func(t *testing.T, b []byte, details byte) {
		e := Events{Packed: b, Details: make([]EventDetail, details)}
		var again Events
		n := 0
		err := e.Each(func(kind uint8, hash, version uint64, d *EventDetail) {
			n++
			if (d == nil) != (kind == EventChanged) {
				t.Errorf("an event of kind %d with details %v", kind, d)
			}
			again.Add(kind, hash, version, d)
		})
		if err != nil && n > 0 || err == nil && (n != e.Len() || !bytes.Equal(again.Packed, b) || len(again.Details) != int(details)) {
			t.Errorf("%d of %d events, %v", n, e.Len(), err)
		}
		var marks []byte
		err = EachMark(b, func(p uint16, changed, raised uint64) { marks = AppendMark(marks, p, changed, raised) })
		if err != nil && marks != nil || err == nil && !bytes.Equal(marks, b) {
			t.Errorf("marks: %v", err)
		}
	})
}

func testEvents() Events {
	var e Events
	e.Add(EventChanged, 0x1122334455667788, 5, nil)
	e.Add(EventRaised, 0, 6, &EventDetail{Partitions: []byte{3}})
	e.Add(EventFlushed, 0, 7, &EventDetail{Namespace: "users"})
	return e
}

// FuzzRequest checks that an accepted request is valid msgpack, survives a round trip,
// and encodes to the same bytes as with the reference codec; and that decodeShort is as
// decodeAny.
func FuzzRequest(f *testing.F) {
	for _, g := range messages() {
		if g.request != nil {
			f.Add(g.bytes()[LengthSize:])
		}
	}
	f.Add([]byte{0x96, 7, 3, 0, 0xc0, 0xa1, 'k', 0xc0})
	f.Fuzz(func(t *testing.T, b []byte) {
		sameDecoded(t, b)
		var r Request
		if err := DecodeRequest(b, &r); err != nil {
			if err.Status != BadRequest && err.Status != Unsupported {
				t.Fatalf("%x: %v", b, err)
			}
			return
		}
		if err := checkMsgpack(b); err != nil {
			t.Fatalf("accepted %x, which checkMsgpack refuses: %v", b, err)
		}
		if id, ok := PeekID(b); !ok || id != r.ID {
			t.Fatalf("PeekID(%x) = %d, %v, want %d", b, id, ok, r.ID)
		}
		if r.Op == OpHello || r.Op.Peer() {
			return // maps may have unknown keys, or keys of any type
		}
		frame := AppendRequest(nil, &r)[LengthSize:]
		var again Request
		if err := DecodeRequest(frame, &again); err != nil {
			t.Fatalf("%+v encodes to %x: %v", r, frame, err)
		}
		if r.Namespace != nil && len(r.Namespace) == 0 {
			r.Namespace, again.Namespace = nil, nil
		}
		if !sameRequest(&r, &again) {
			t.Fatalf("%+v comes back as %+v", r, again)
		}
		if got := reference(t, frame); !bytes.Equal(got, frame) {
			t.Fatalf("%x, the reference codec gives %x", frame, got)
		}
	})
}

// FuzzReply checks answers to each op: an accepted answer is valid msgpack and survives
// a round trip.
func FuzzReply(f *testing.F) {
	for _, g := range messages() {
		if g.reply != nil {
			f.Add(uint8(opsByName()[g.Op]), g.bytes()[LengthSize:])
		}
	}
	f.Fuzz(func(t *testing.T, o uint8, b []byte) {
		op := Op(o)
		if !op.Known() {
			return
		}
		var r Reply
		if DecodeReply(op, b, &r) != nil {
			return
		}
		if err := checkMsgpack(b); err != nil {
			t.Fatalf("accepted %x, which checkMsgpack refuses: %v", b, err)
		}
		frame := AppendReply(nil, op, &r)[LengthSize:]
		var again Reply
		if err := DecodeReply(op, frame, &again); err != nil {
			t.Fatalf("%+v encodes to %x: %v", r, frame, err)
		}
		if !sameReply(&r, &again) {
			t.Fatalf("%s: %+v comes back as %+v", op, r, again)
		}
	})
}

// FuzzCheckMsgpack checks that a recursive decoder handles every value that
// checkMsgpack accepts.
func FuzzCheckMsgpack(f *testing.F) {
	f.Add([]byte{0x92, 0x81, 0xa1, 'a', 0xc0, 0xc4, 0x01, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		if checkMsgpack(b) != nil {
			return
		}
		var v any
		_ = msgpack.Unmarshal(b, &v)
	})
}

func BenchmarkDecodeGet(b *testing.B) {
	frame := AppendRequest(nil, &Request{ID: 123456, Op: OpGet, Key: []byte("key:1234567890ab")})[LengthSize:]
	var r Request
	for b.Loop() {
		if DecodeRequest(frame, &r) != nil {
			b.Fatal()
		}
	}
}

func BenchmarkCheckGet(b *testing.B) {
	frame := AppendRequest(nil, &Request{ID: 123456, Op: OpGet, Key: []byte("key:1234567890ab")})[LengthSize:]
	for b.Loop() {
		if checkMsgpack(frame) != nil {
			b.Fatal()
		}
	}
}
