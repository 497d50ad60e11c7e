package memcached

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestGomemcache does everything that gomemcache can do.
func TestGomemcache(t *testing.T) {
	c := memcache.New(oneServer(t))
	c.Timeout = 5 * time.Second
	defer c.Close()
	ok := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	fails := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	holds := func(key, want string) *memcache.Item {
		t.Helper()
		it, err := c.Get(key)
		if err != nil || string(it.Value) != want {
			t.Errorf("%s is %+v, %v, want %q", key, it, err, want)
			return &memcache.Item{Key: key}
		}
		return it
	}
	item := func(key, value string) *memcache.Item { return &memcache.Item{Key: key, Value: []byte(value)} }

	ok("ping", c.Ping())
	_, err := c.Get("a")
	fails("get of nothing", err, memcache.ErrCacheMiss)
	fails("replace of nothing", c.Replace(item("a", "x")), memcache.ErrNotStored)
	fails("append to nothing", c.Append(item("a", "x")), memcache.ErrNotStored)
	fails("prepend to nothing", c.Prepend(item("a", "x")), memcache.ErrNotStored)
	fails("touch of nothing", c.Touch("a", 10), memcache.ErrCacheMiss)
	fails("delete of nothing", c.Delete("a"), memcache.ErrCacheMiss)
	_, err = c.Increment("a", 1)
	fails("increment of nothing", err, memcache.ErrCacheMiss)
	_, err = c.GetAndTouch("a", 10)
	fails("get and touch of nothing", err, memcache.ErrCacheMiss)

	ok("set", c.Set(&memcache.Item{Key: "a", Value: []byte("one"), Flags: 1<<32 - 1, Expiration: 100}))
	if it := holds("a", "one"); it.Flags != 1<<32-1 {
		t.Errorf("the flags are %d", it.Flags)
	}
	fails("add of what is there", c.Add(item("a", "x")), memcache.ErrNotStored)
	ok("add", c.Add(item("b", "b")))
	ok("replace", c.Replace(item("b", "two")))
	ok("append", c.Append(item("b", ">")))
	ok("prepend", c.Prepend(item("b", "<")))
	holds("b", "<two>")
	ok("touch", c.Touch("b", 100))
	it, err := c.GetAndTouch("b", 1)
	if err != nil || string(it.Value) != "<two>" {
		t.Errorf("get and touch: %+v, %v", it, err)
	}
	testenv.Eventually(t, "a time of a second to be over", func() bool {
		_, err := c.Get("b")
		return errors.Is(err, memcache.ErrCacheMiss)
	})

	first, second := holds("a", "one"), holds("a", "one")
	first.Value, second.Value = []byte("first"), []byte("second")
	ok("compare and swap", c.CompareAndSwap(first))
	fails("compare and swap behind another", c.CompareAndSwap(second), memcache.ErrCASConflict)
	holds("a", "first")
	ok("delete", c.Delete("a"))
	fails("compare and swap of nothing", c.CompareAndSwap(first), memcache.ErrCacheMiss)

	gomemcacheCounts(t, c)
	gomemcacheMany(t, c)
	ok("flush", c.FlushAll())
	_, err = c.Get("many-1")
	fails("get behind a flush", err, memcache.ErrCacheMiss)
	ok("set", c.Set(item("many-1", "x")))
	ok("delete all", c.DeleteAll())
	_, err = c.Get("many-1")
	fails("get behind delete all", err, memcache.ErrCacheMiss)
}

// gomemcacheCounts counts up and down.
func gomemcacheCounts(t *testing.T, c *memcache.Client) {
	t.Helper()
	if err := c.Set(&memcache.Item{Key: "n", Value: []byte("10")}); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Increment("n", 5); n != 15 || err != nil {
		t.Errorf("10 + 5 is %d, %v", n, err)
	}
	if n, err := c.Decrement("n", 6); n != 9 || err != nil {
		t.Errorf("15 - 6 is %d, %v", n, err)
	}
	if n, err := c.Decrement("n", 100); n != 0 || err != nil {
		t.Errorf("9 - 100 is %d, %v", n, err)
	}
	if err := c.Set(&memcache.Item{Key: "n", Value: []byte("ten")}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Increment("n", 1); err == nil {
		t.Error("ten is incremented")
	}
}

// gomemcacheMany asks for many keys at once, and for values of any size and bytes.
func gomemcacheMany(t *testing.T, c *memcache.Client) {
	t.Helper()
	var keys []string
	for i := range 200 {
		key := fmt.Sprintf("many-%d", i)
		keys = append(keys, key)
		if i%2 == 0 {
			continue
		}
		value := bytes.Repeat([]byte{byte(i), '\r', '\n', 0}, i*i/8)
		if err := c.Set(&memcache.Item{Key: key, Value: value, Flags: uint32(i)}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := c.GetMulti(keys)
	if err != nil || len(got) != 100 {
		t.Fatalf("%d items, %v, want 100", len(got), err)
	}
	for i := 1; i < 200; i += 2 {
		it := got[keys[i]]
		if it == nil || it.Flags != uint32(i) || !bytes.Equal(it.Value, bytes.Repeat([]byte{byte(i), '\r', '\n', 0}, i*i/8)) {
			t.Errorf("%s came back as another", keys[i])
		}
	}
	big := bytes.Repeat([]byte("x"), 1000*1000)
	if err := c.Set(&memcache.Item{Key: "big", Value: big}); err != nil {
		t.Error(err)
	}
	if it, err := c.Get("big"); err != nil || !bytes.Equal(it.Value, big) {
		t.Errorf("a million bytes: %v", err)
	}
	if err := c.Set(&memcache.Item{Key: "big", Value: append(big, big...)}); err == nil {
		t.Error("two million bytes are stored")
	}
	if _, err := c.Get("big"); !errors.Is(err, memcache.ErrCacheMiss) {
		t.Errorf("what was there before a value that is too large: %v", err)
	}
}
