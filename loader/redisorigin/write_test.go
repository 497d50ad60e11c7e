package redisorigin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"

	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/proctest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// endless is a server whose list of keys has no end.
func endless(t *testing.T) (address string) {
	return scripted(t, func(line string) string {
		switch line {
		case "s3cret": // the end of AUTH
			return greeting
		case fmt.Sprint(page): // the end of SCAN
			return "*2\r\n$1\r\n1\r\n*1\r\n$1\r\na\r\n"
		}
		return ""
	})
}

func TestList(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	server, socket := startRedis(t)
	ctx := context.Background()
	with := func(address, prefix string, timeout time.Duration) loader.Lister {
		l, err := source(t, Config{Address: address, Password: "s3cret", KeyPrefix: prefix}, loader.OriginOptions{Timeout: timeout}).NewLister(loader.List{Timeout: timeout})
		testenv.Must(t, err)
		return l
	}
	s := source(t, Config{Address: socket, Password: "s3cret"})
	var many []string
	values := []string{"p:list", "x", "p:", "x", "[*?", "x", `[*?]\a`, "x", `[*?]\b`, "x", "aaaa", "x", "long:" + strings.Repeat("k", 1025), "x", "long:" + strings.Repeat("k", 1024), "x"}
	for i := range 5000 {
		many = append(many, fmt.Sprintf("key-%04d\r\n", i))
		values = append(values, "many:"+many[i], "x")
	}
	testenv.Must(t, testenv.ErrorOf(s.do(ctx, "MSET", redis.Args{}.AddFlat(values)...)))
	everything := []string{"p:list", "p:", "[*?", `[*?]\a`, `[*?]\b`, "aaaa"}
	for _, key := range many {
		everything = append(everything, "many:"+key)
	}
	slices.Sort(everything)
	hasty := func(address string) loader.Lister { return with(address, "", 300*time.Millisecond) }
	wrong, err := source(t, Config{Address: socket, Password: "wr0ng"}).NewLister(loader.List{})
	testenv.Must(t, err)
	origintest.RunLists(t, []origintest.List{
		{Name: "everything", Lister: with(socket, "", 0), Want: everything},
		{Name: "many", Lister: with(socket, "many:", 0), Want: many},
		{Name: "of any type, and not the empty one", Lister: with(socket, "p:", 0), Want: []string{"list"}},
		{Name: "none", Lister: with(socket, "none:", 0)},
		{Name: "a prefix is no pattern", Lister: with(socket, `[*?]\`, 0), Want: []string{"a", "b"}},
		{Name: "not those that are too long", Lister: with(socket, "long:", 0), Want: []string{strings.Repeat("k", 1024)}},
		{Name: "wrong password", Lister: wrong, Err: origintest.ErrAny, Secret: "wr0ng"},
		{Name: "nobody listens", Lister: hasty(testenv.Refusing(t)), Err: origintest.ErrAny, Secret: "s3cret"},
		{Name: "garbage", Lister: hasty(origintest.Saying(t, "garbage\r\n")), Err: origintest.ErrAny},
		{Name: "silence", Lister: hasty(origintest.Saying(t, "")), Err: origintest.ErrAny},
		{Name: "drips", Lister: hasty(origintest.Dripping(t, "+", "x")), Err: origintest.ErrAny},
		{Name: "drops the connection", Lister: hasty(origintest.Cutting(t, "")), Err: origintest.ErrAny},
		{Name: "states more than there is memory", Lister: hasty(origintest.Saying(t, greeting+"*2\r\n$1\r\n1\r\n*2000000000000\r\n")), Err: origintest.ErrAny},
		{Name: "states more than there are numbers", Lister: hasty(origintest.Saying(t, greeting+"*2\r\n$1\r\n1\r\n*99999999999999999999\r\n")), Err: origintest.ErrAny},
		{Name: "never ends", Lister: hasty(endless(t)), Err: origintest.ErrAny},
		{Name: "no cursor", Lister: hasty(origintest.Saying(t, greeting+"*2\r\n$-1\r\n*0\r\n")), Err: origintest.ErrAny},
		{Name: "no Redis", Lister: hasty(origintest.Saying(t, strings.Repeat("+OK\r\n", 10))), Err: origintest.ErrAny},
	})

	t.Run("another server in the middle", func(t *testing.T) {
		proxy := origintest.NewProxy(t, "unix", socket)
		n := 0
		err := with(proxy.Address, "many:", 0).Keys(ctx, func([]byte) error {
			if n++; n == 1 {
				proxy.Cut()
			}
			return nil
		})
		if loader.Answered(err) {
			t.Errorf("after %d keys of %d: %v", n, len(many), err)
		}
	})

	t.Run("hangs in the middle", func(t *testing.T) {
		n := 0
		err := with(socket, "many:", 300*time.Millisecond).Keys(ctx, func([]byte) error {
			if n++; n == 1 {
				proctest.Stop(t, server.Process)
			}
			return nil
		})
		if loader.Answered(err) || n == len(many) {
			t.Errorf("after %d keys: %v", n, err)
		}
		testenv.Must(t, server.Process.Signal(syscall.SIGCONT))
	})

	if _, err := s.NewLister(loader.List{Timeout: -1}); err == nil {
		t.Error("a negative timeout was taken")
	}
}

func TestWrite(t *testing.T) {
	testenv.Takes(t, 3*time.Second)
	t.Parallel()
	server, socket := startRedis(t)
	ctx := context.Background()
	with := func(cfg Config, write WriteConfig, options ...loader.OriginOptions) loader.Writer {
		cfg.KeyPrefix, cfg.Write = "p:", write
		if cfg.Password == "" {
			cfg.Password = "s3cret"
		}
		return source(t, cfg, options...)
	}
	s := source(t, Config{Address: socket, Password: "s3cret"})
	w := with(Config{Address: socket}, WriteConfig{})
	proxy := origintest.NewProxy(t, "unix", socket)
	proxied := with(Config{Address: proxy.Address}, WriteConfig{})
	hasty := func(address string) loader.Writer {
		return with(Config{Address: address}, WriteConfig{}, loader.OriginOptions{Timeout: origintest.Hasty})
	}
	saying := func(answer string) loader.Writer {
		return with(Config{Address: origintest.Saying(t, greeting+answer+"\r\n")}, WriteConfig{})
	}
	origintest.RunWrites(t, []origintest.Write{
		{Name: "store", Writer: w, Key: "a", Value: "1\x00\r\n"},
		{Name: "store again", Writer: w, Key: "a", Value: "2\x00\r\n"},
		{Name: "empty", Writer: w, Key: "empty"},
		{Name: "for a time", Writer: with(Config{Address: socket}, WriteConfig{TTL: time.Hour}), Key: "ttl", Value: "1"},
		{Name: "store and delete", Writer: w, Key: "gone", Value: "1"},
		{Name: "delete", Writer: w, Key: "gone", Delete: true},
		{Name: "delete what is not there", Writer: w, Key: "gone", Delete: true},
		{Name: "wrong password", Writer: with(Config{Address: socket, Password: "wr0ng"}, WriteConfig{}), Key: "a", Err: loader.ErrNotWritten, Secret: "wr0ng"},
		{Name: "nobody listens", Writer: hasty(testenv.Refusing(t)), Key: "a", Err: loader.ErrNotWritten, Secret: "s3cret"},
		{Name: "garbage", Writer: hasty(origintest.Saying(t, "garbage\r\n")), Key: "a", Err: origintest.ErrUnknown},
		{Name: "drops the connection", Writer: hasty(origintest.Cutting(t, "")), Key: "a", Err: origintest.ErrUnknown},
		{Name: "a proxy's error", Writer: saying("-ERR upstream failure"), Key: "a", Err: origintest.ErrUnknown},
		{Name: "still loading", Writer: saying("-LOADING Redis is loading the dataset in memory"), Key: "a", Err: loader.ErrNotWritten},
		{Name: "through a proxy", Writer: proxied, Key: "proxied", Value: "1"},
	})
	proxy.Lose(true)
	origintest.RunWrites(t, []origintest.Write{
		{Name: "done, and its answer lost", Writer: proxied, Key: "proxied", Value: "2", Err: origintest.ErrUnknown},
	})
	testenv.Must(t, testenv.ErrorOf(s.do(ctx, "CONFIG", "SET", "maxmemory", "1")))
	origintest.RunWrites(t, []origintest.Write{{Name: "no memory", Writer: w, Key: "a", Value: "3", Err: loader.ErrNotWritten}})
	testenv.Must(t, testenv.ErrorOf(s.do(ctx, "CONFIG", "SET", "maxmemory", "0")))
	late := with(Config{Address: socket}, WriteConfig{}, loader.OriginOptions{Timeout: origintest.Hasty})
	origintest.RunWrites(t, []origintest.Write{{Name: "before it hangs", Writer: late, Key: "late", Value: "1"}})
	proctest.Stop(t, server.Process)
	origintest.RunWrites(t, []origintest.Write{{Name: "hangs", Writer: late, Key: "late", Value: "2", Err: origintest.ErrUnknown}})
	testenv.Must(t, server.Process.Signal(syscall.SIGCONT))
	stored := func() string { value, _ := redis.String(s.do(ctx, "GET", "p:late")); return value }
	// The late effect makes the outcome unknown.
	testenv.Eventually(t, "what was sent before the timeout", func() bool { return stored() == "2" })
	for key, want := range map[string]string{"a": "2\x00\r\n", "empty": "", "proxied": "2", "ttl": "1"} {
		if got, err := redis.String(s.do(ctx, "GET", "p:"+key)); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", key, got, err, want)
		}
	}
	if n, err := redis.Int(s.do(ctx, "EXISTS", "p:gone")); err != nil || n != 0 {
		t.Error("a deleted key is there")
	}
	if left, err := redis.Int(s.do(ctx, "PTTL", "p:ttl")); err != nil || left > 3_600_000 || left < 3_000_000 {
		t.Errorf("a TTL of 1h: %v ms are left, %v", left, err)
	}
	if left, err := redis.Int(s.do(ctx, "PTTL", "p:a")); err != nil || left >= 0 {
		t.Errorf("no TTL: %v ms are left, %v", left, err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := w.Delete(cancelled, []byte("a")); !errors.Is(err, loader.ErrNotWritten) {
		t.Errorf("cancelled before it began: %v", err)
	}
	for _, cfg := range []WriteConfig{{TTL: -1}, {TTL: time.Microsecond}} {
		if _, err := New(Config{Address: socket, Write: cfg}, loader.OriginOptions{WriteThrough: true}); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

// TestWriteWithoutAnswer checks writes to servers that do not answer.
func TestWriteWithoutAnswer(t *testing.T) {
	testenv.Takes(t, 3*time.Second)
	t.Parallel()
	hasty := func(address string) loader.Writer {
		return source(t, Config{Address: address, KeyPrefix: "p:", Password: "s3cret"}, loader.OriginOptions{Timeout: origintest.Hasty})
	}
	origintest.RunWrites(t, []origintest.Write{
		{Name: "silence", Writer: hasty(origintest.Saying(t, "")), Key: "a", Err: origintest.ErrUnknown, Hangs: true},
		{Name: "drips", Writer: hasty(origintest.Dripping(t, "+", "x")), Key: "a", Err: origintest.ErrUnknown, Hangs: true},
	})
}
