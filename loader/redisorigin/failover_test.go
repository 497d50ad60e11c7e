package redisorigin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// moved is a name that leads from one server to another one. A connection stays with the server that the
// name led to when it was made, as with DNS.
type moved struct {
	address string
	moved   atomic.Bool // the name leads to the second server, and the first one gives the answer below
	answer  string
	made    atomic.Int64 // connections to the second server
	kept    atomic.Int64 // connections to the first server that are open
}

func newMoved(t *testing.T, answer string) *moved {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testenv.Must(t, err)
	m := &moved{address: l.Addr().String(), answer: answer}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() { // ends with l
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { m.serve(c) }) // ends with the connection, which the source closes
		}
	})
	return m
}

func (m *moved) serve(c net.Conn) {
	defer c.Close()
	second := m.moved.Load()
	if second {
		m.made.Add(1)
	} else {
		m.kept.Add(1)
		defer m.kept.Add(-1)
	}
	for in := bufio.NewScanner(c); in.Scan(); {
		reply := map[string]string{"SET": "+OK\r\n", "GET": "$1\r\nx\r\n", "PTTL": ":-1\r\n", "PING": "+PONG\r\n"}[in.Text()]
		if reply != "" && in.Text() != "PING" && !second && m.moved.Load() {
			reply = "-" + m.answer + "\r\n"
		}
		if _, err := c.Write([]byte(reply)); err != nil {
			return
		}
	}
}

// fill opens n connections, and leaves them idle.
func fill(t *testing.T, s *Source, n int) {
	t.Helper()
	var open []redis.Conn
	for range n {
		c, err := s.get(t.Context())
		testenv.Must(t, err)
		testenv.Must(t, testenv.ErrorOf(redis.DoContext(c, t.Context(), "PING")))
		open = append(open, c)
	}
	for _, c := range open {
		s.put(c)
	}
}

// TestFailover checks that one answer of a server that is not the one any more ends all connections to it,
// so that the next call looks the name up; and that other errors end none.
func TestFailover(t *testing.T) {
	const pool = 8
	calls := map[string]func(*Source) error{
		"store": func(s *Source) error { return s.Store(context.Background(), []byte("k"), loader.Value{}) },
		"load":  func(s *Source) error { return testenv.ErrorOf(s.Load(context.Background(), []byte("k"))) },
	}
	for _, tc := range []struct {
		answer string
		leaves bool
	}{
		{"READONLY You can't write against a read only replica.", true},
		{"LOADING Redis is loading the dataset in memory", true},
		{"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", true},
		{"NOREPLICAS Not enough good replicas to write.", true},
		{"CLUSTERDOWN The cluster is down", true},
		{"NOAUTH Authentication required.", true},
		{"MOVED 12182 127.0.0.1:7000", true},
		{"ASK 12182 127.0.0.1:7000", false},
		{"BUSY Redis is busy running a script.", false},
		{"MISCONF Errors writing to the RDB file", false},
		{"OOM command not allowed when used memory > 'maxmemory'.", false},
		{"NOPERM this user has no permissions", false},
		{"WRONGTYPE Operation against a key holding the wrong kind of value", false},
		{"ERR upstream failure", false},
	} {
		for name, call := range calls {
			code, _, _ := strings.Cut(tc.answer, " ")
			t.Run(code+" "+name, func(t *testing.T) {
				m := newMoved(t, tc.answer)
				s := source(t, Config{Address: m.address, Connections: pool})
				fill(t, s, pool)
				m.moved.Store(true)
				err := call(s)
				if err == nil || name == "store" && code != "ERR" && code != "WRONGTYPE" && !errors.Is(err, loader.ErrNotWritten) {
					t.Fatalf("the first call: %v", err)
				}
				if remedy := strings.Contains(err.Error(), "redirects are not followed"); remedy != (code == "MOVED" || code == "ASK") {
					t.Errorf("the first call: %v", err)
				}
				if err := call(s); (err == nil) != tc.leaves {
					t.Errorf("the second call: %v", err)
				}
				if made := m.made.Load(); (made == 1) != tc.leaves {
					t.Errorf("%d connections to the second server", made)
				}
				if tc.leaves && !t.Failed() {
					testenv.Eventually(t, "the connections to the first server to end", func() bool { return m.kept.Load() == 0 })
				}
			})
		}
	}
}

// TestConnectionAge checks that reads alone, which a demoted server answers, leave it in time.
func TestConnectionAge(t *testing.T) {
	m := newMoved(t, "MISCONF, which ends no connection")
	s := source(t, Config{Address: m.address})
	s.terms.MaxAge = 50 * time.Millisecond
	testenv.ReadsClock(t, s.terms.MaxAge, "the age of a connection, which the pool takes from the clock")
	fill(t, s, 1)
	m.moved.Store(true)
	testenv.Succeeds(t, "a load from the second server", func() error {
		_, err := s.Load(t.Context(), []byte("k"))
		return err
	})
}

// TestMaxClients checks that a server without a free connection is not blamed on the login, and that
// nothing was written.
func TestMaxClients(t *testing.T) {
	for _, password := range []string{"", "s3cret"} {
		address := scripted(t, func(string) string { return "-ERR max number of clients reached\r\n" })
		s := source(t, Config{Address: address, Password: password})
		err := s.Store(t.Context(), []byte("k"), loader.Value{})
		if !errors.Is(err, loader.ErrNotWritten) || !strings.Contains(fmt.Sprint(err), "max number of clients") {
			t.Errorf("with the password %q: %v", password, err)
		}
	}
}
