package redisorigin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"

	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// TestConnectionIsKept checks that a connection outlives the deadline of its last reply.
func TestConnectionIsKept(t *testing.T) {
	_, socket := startRedis(t)
	s := source(t, Config{Address: socket, Password: "s3cret"})
	check := s.pool.TestOnBorrow
	s.pool.TestOnBorrow = func(c redis.Conn, used time.Time) error {
		if err := c.(*conn).stream.SetDeadline(time.Unix(1, 0)); err != nil {
			return err
		}
		return check(c, used)
	}
	first, err := redis.Int(s.do(context.Background(), "CLIENT", "ID"))
	testenv.Must(t, err)
	if second, err := redis.Int(s.do(context.Background(), "CLIENT", "ID")); err != nil || second != first {
		t.Errorf("connection %d, and then %d, %v", first, second, err)
	}
}

// TestSurplus checks that a server that sends a reply twice, or the beginning of another
// one, does not shift the replies of later requests.
func TestSurplus(t *testing.T) {
	for _, surplus := range []string{"", "+OK\r\n", "+O", "$2\r\nx", "again"} {
		t.Run(surplus, func(t *testing.T) {
			s := source(t, Config{Address: repeater(t, surplus)})
			for i := range 4 {
				key := fmt.Sprint("key-", i)
				v, err := s.Load(context.Background(), []byte(key))
				if err == nil && string(v.Bytes) != key {
					t.Errorf("%s has the value of %s", key, v.Bytes)
				}
				if good := i > 0 || surplus == ""; good != (err == nil) {
					t.Errorf("%s: %v", key, err)
				}
			}
		})
	}
}

// repeater is a server whose values are the keys. Its first answer has surplus bytes;
// "again" stands for the answer itself.
func repeater(t *testing.T, surplus string) (address string) {
	asked := 0
	return scripted(t, func(key string) string {
		if strings.HasPrefix(key, "key-") {
			asked++
		}
		if asked < 3 { // PTTL, GET, PTTL
			return ""
		}
		asked = 0
		answer := fmt.Sprintf(":-1\r\n$%d\r\n%s\r\n:-1\r\n", len(key), key)
		both := answer + strings.ReplaceAll(surplus, "again", answer)
		surplus = ""
		return both
	})
}

// scripted is a server that gives an answer to each line. It serves one connection at a
// time.
func scripted(t *testing.T, answer func(line string) string) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testenv.Must(t, err)
	ended := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-ended })
	go func() { // ends with l, and with the connections
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			for in := bufio.NewScanner(c); in.Scan(); {
				_, _ = c.Write([]byte(answer(in.Text())))
			}
			_ = c.Close()
		}
	}()
	return l.Addr().String()
}

// TestClose checks that Close waits for the calls, and that calls after it fail.
func TestClose(t *testing.T) {
	s := source(t, Config{Address: origintest.Saying(t, ""), Connections: 1}, loader.OriginOptions{Timeout: 300 * time.Millisecond})
	calls := make(chan error, 50)
	for range cap(calls) {
		go func() { // ends at the timeout
			_, err := s.Load(context.Background(), []byte("a"))
			calls <- err
		}()
	}
	testenv.Eventually(t, "calls", func() bool { return s.pool.ActiveCount() > 0 || len(calls) == cap(calls) })
	testenv.Must(t, s.Close())
	if n := s.pool.ActiveCount(); n != 0 {
		t.Errorf("%d connections after Close", n)
	}
	for range cap(calls) {
		if err := <-calls; err == nil {
			t.Error("a server without an answer has given one")
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range 50 { // the pool chooses at random
		if _, err := s.Load(ctx, []byte("a")); err == nil {
			t.Error("a load after Close")
		}
	}
	if err := s.Delete(context.Background(), []byte("a")); !errors.Is(err, loader.ErrNotWritten) {
		t.Errorf("a deletion after Close: %v", err)
	}
}

// TestListHandshake checks that the handshake of a list's connection has the timeout of a
// load, not that of the list.
func TestListHandshake(t *testing.T) {
	s := source(t, Config{Address: origintest.Saying(t, ""), TLS: true}, loader.OriginOptions{Timeout: 300 * time.Millisecond})
	l, err := s.NewLister(loader.List{Timeout: origintest.Never})
	testenv.Must(t, err)
	origintest.RunLists(t, []origintest.List{{Name: "silence", Lister: l, Err: origintest.ErrAny}})
}
