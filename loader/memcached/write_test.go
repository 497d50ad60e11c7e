package memcached

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/proctest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

func TestWrite(t *testing.T) {
	testenv.Takes(t, 3*time.Second)
	t.Parallel()
	server, socket := startMemcached(t)
	writer := func(cfg Config, write WriteConfig, options ...loader.OriginOptions) loader.Writer {
		cfg.KeyPrefix, cfg.Write = "p:", write
		return source(t, cfg, options...)
	}
	s := source(t, Config{Servers: []string{socket}})
	w := writer(Config{Servers: []string{socket}}, WriteConfig{})
	proxy := origintest.NewProxy(t, "unix", socket)
	proxied := writer(Config{Servers: []string{proxy.Address}}, WriteConfig{})
	hasty := func(address string) loader.Writer {
		return writer(Config{Servers: []string{address}}, WriteConfig{}, loader.OriginOptions{Timeout: origintest.Hasty})
	}
	origintest.RunWrites(t, []origintest.Write{
		{Name: "store", Writer: w, Key: "a", Value: "1\x00\r\n"},
		{Name: "store again", Writer: w, Key: "a", Value: "2\x00\r\n"},
		{Name: "empty", Writer: w, Key: "empty"},
		{Name: "for a time", Writer: writer(Config{Servers: []string{socket}}, WriteConfig{TTL: time.Second}), Key: "ttl", Value: "1"},
		{Name: "for as long as may be", Writer: writer(Config{Servers: []string{socket}}, WriteConfig{TTL: maxTTL}), Key: "long", Value: "1"},
		{Name: "store and delete", Writer: w, Key: "gone", Value: "1"},
		{Name: "delete", Writer: w, Key: "gone", Delete: true},
		{Name: "delete what is not there", Writer: w, Key: "gone", Delete: true},
		{Name: "to be replaced by too much", Writer: w, Key: "big", Value: "1"},
		{Name: "too much", Writer: w, Key: "big", Value: strings.Repeat("x", 3<<20), Err: origintest.ErrUnknown},
		{Name: "bad key", Writer: w, Key: "a b", Err: loader.ErrBadKey},
		{Name: "a command in a key", Writer: w, Key: "a\r\nflush_all", Delete: true, Err: loader.ErrBadKey},
		{Name: "key too long", Writer: w, Key: strings.Repeat("k", 249), Err: loader.ErrBadKey},
		{Name: "nobody listens", Writer: hasty(testenv.Refusing(t)), Key: "a", Err: loader.ErrNotWritten},
		{Name: "garbage", Writer: hasty(origintest.Saying(t, "garbage\r\n")), Key: "a", Err: origintest.ErrUnknown},
		{Name: "error", Writer: hasty(origintest.Saying(t, "SERVER_ERROR out of memory storing object\r\n")), Key: "a", Err: origintest.ErrUnknown},
		{Name: "drops the connection", Writer: hasty(origintest.Cutting(t, "")), Key: "a", Err: origintest.ErrUnknown},
		{Name: "through a proxy", Writer: proxied, Key: "proxied", Value: "1"},
	})
	proxy.Lose(true)
	origintest.RunWrites(t, []origintest.Write{
		{Name: "done, and its answer lost", Writer: proxied, Key: "proxied", Value: "2", Err: origintest.ErrUnknown},
	})
	late := hasty(socket)
	proctest.Stop(t, server.Process)
	origintest.RunWrites(t, []origintest.Write{{Name: "hangs", Writer: late, Key: "late", Value: "1", Err: origintest.ErrUnknown}})
	testenv.Must(t, server.Process.Signal(syscall.SIGCONT))
	for key, want := range map[string]string{"a": "2\x00\r\n", "empty": "", "long": "1", "proxied": "2"} {
		if got, err := s.client.Get("p:" + key); err != nil || string(got.Value) != want || got.Flags != 7 {
			t.Errorf("%s: got %+v, %v, want %q", key, got, err, want)
		}
	}
	for _, key := range []string{"gone", "big"} {
		if got, err := s.client.Get("p:" + key); !errors.Is(err, memcache.ErrCacheMiss) {
			t.Errorf("%s: got %+v, %v, want none", key, got, err)
		}
	}
	testenv.Eventually(t, "the end of a TTL of 1s", func() bool {
		_, err := s.client.Get("p:ttl")
		return errors.Is(err, memcache.ErrCacheMiss)
	})
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Delete(cancelled, []byte("a")); !errors.Is(err, loader.ErrNotWritten) {
		t.Errorf("cancelled before it began: %v", err)
	}
	for _, cfg := range []WriteConfig{{TTL: -1}, {TTL: time.Millisecond}, {TTL: maxTTL + time.Second}} {
		if _, err := New(Config{Servers: []string{socket}, Write: cfg}, loader.OriginOptions{WriteThrough: true}); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

// TestWriteWithoutAnswer checks writes to servers that do not answer.
func TestWriteWithoutAnswer(t *testing.T) {
	testenv.Takes(t, 3*time.Second)
	t.Parallel()
	hasty := func(address string) loader.Writer {
		return source(t, Config{Servers: []string{address}, KeyPrefix: "p:"}, loader.OriginOptions{Timeout: origintest.Hasty})
	}
	origintest.RunWrites(t, []origintest.Write{
		{Name: "silence", Writer: hasty(origintest.Saying(t, "")), Key: "a", Err: origintest.ErrUnknown, Hangs: true},
		{Name: "drips", Writer: hasty(origintest.Dripping(t, "STO", "x")), Key: "a", Err: origintest.ErrUnknown, Hangs: true},
	})
}
