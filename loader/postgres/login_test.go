package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/time/rate"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// challenges plays a server that has each log-in hash the password n times, with the client's nonce or another.
func challenges(c net.Conn, n string) {
	defer c.Close()
	b := pgproto3.NewBackend(c, c)
	if _, err := b.ReceiveStartupMessage(); err != nil {
		return
	}
	b.Send(&pgproto3.AuthenticationSASL{AuthMechanisms: []string{"SCRAM-SHA-256"}})
	_ = b.Flush()
	_ = b.SetAuthType(pgproto3.AuthTypeSASL)
	first, err := b.Receive()
	if err != nil {
		return
	}
	_, nonce, _ := strings.Cut(string(first.(*pgproto3.SASLInitialResponse).Data), "r=")
	b.Send(&pgproto3.AuthenticationSASLContinue{Data: []byte("r=" + nonce + "x,s=c2FsdA==,i=" + n)})
	_ = b.Flush()
	_, _ = io.Copy(io.Discard, c)
}

// TestIterations checks that no server has this host hash a password more often than maxIterations, by any log-in.
func TestIterations(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		const dsn = "host=lies.test user=tester password=s3cret dbname=shop sslmode=disable"
		dial := func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			go challenges(server, fmt.Sprint(maxIterations+1)) // ends with the connection
			return client, nil
		}
		s := source(t, Config{DSN: dsn, Query: "SELECT $1"})
		pool := s.pool.Config().ConnConfig
		feed := &Feed{cfg: FeedConfig{DSN: dsn}}
		follows, err := feed.config(true)
		testenv.Must(t, err)
		for name, cfg := range map[string]*pgconn.Config{"an origin": &pool.Config, "a feed": follows} {
			cfg.DialFunc, cfg.LookupFunc = dial, func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
			_, err := pgconn.ConnectConfig(t.Context(), cfg)
			if err == nil || !strings.Contains(err.Error(), "100001 iterations") || !strings.Contains(err.Error(), "scram_iterations") ||
				strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// TestLogins checks that log-ins at a server take a small part of a processor, and that none waits for long.
func TestLogins(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		cfg, err := pgx.ParseConfig("host=paced.test user=tester")
		testenv.Must(t, err)
		defer servers.Clear() // its time is that of this test
		one, other := paceOf(&cfg.Config), newPace()
		began := time.Now()
		for _, tc := range []struct {
			at   *rate.Limiter
			n    int
			want time.Duration // since the beginning
		}{
			{one, maxIterations, 0},
			{other, 4096, 0}, // another server's do not wait
			{other, maxIterations - 4096, 0},
			{one, 10_000, 200 * time.Millisecond},
			{one, 50_000, 1200 * time.Millisecond},
		} {
			if err := awaitLogin(tc.at, tc.n); err != nil || time.Since(began).Round(time.Millisecond) != tc.want {
				t.Errorf("%d iterations: %v after %v, want %v", tc.n, err, time.Since(began), tc.want)
			}
		}
		for i := range 3 { // together they take as long as a log-in waits
			if err := mayConnect(t.Context(), cfg); (err == errLogins) != (i == 2) {
				t.Errorf("a connection while others wait for %d s: %v", i, err)
			}
			go func() { _ = awaitLogin(one, iterationRate) }()
			synctest.Wait()
		}
		if err := awaitLogin(one, 10_000); !errors.Is(err, loader.ErrBusy) {
			t.Errorf("behind 3 s: %v", err)
		}
		if time.Sleep(time.Second); awaitLogin(one, 10_000) != nil {
			t.Error("behind 2 s: refused")
		}
		if err := classified(fmt.Errorf("user=tester: %w", errLogins)); err != errLogins {
			t.Errorf("apps are told %v", err)
		}
	})
}

// TestLoginMessages checks that the messages of a log-in pass as they are, however they come.
func TestLoginMessages(t *testing.T) {
	long := string(message('N', 10_000)) + strings.Repeat("n", 9_996)
	scram := "R\x00\x00\x00\x16\x00\x00\x00\x0br=n,s=c2Fs,i=5"
	for _, tc := range []struct {
		sent string
		err  error
	}{
		{long + scram + long + "R\x00\x00\x00\x08\x00\x00\x00\x00" + "Z\x00\x00\x00\x05I" + "anything", nil},
		{"Z\x00\x00\x00\x05I" + scram, nil},
		{"N\x00\x00\x00\x00" + scram, nil}, // pgx refuses the length
		{"R\x00\x00", io.ErrUnexpectedEOF},
		{"R\x00\x00\x00\x08\x00", io.ErrUnexpectedEOF},
		{"R\x00\x01\x00\x00", errTooLong},
		{strings.Repeat("R\x00\x00\x00\x08\x00\x00\x00\x03", maxAsked), nil},
		{strings.Repeat("R\x00\x00\x00\x08\x00\x00\x00\x03", maxAsked+1), errTooLong},
		{"R\x00\x00\x00\x29\x00\x00\x00\x0br=n,s=c2Fs,i=99999999999999999999", errors.ErrUnsupported},
	} {
		for _, pieces := range []func(io.Reader) io.Reader{iotest.OneByteReader, func(r io.Reader) io.Reader { return r }} {
			got, err := io.ReadAll(pieces(&loginReader{r: pieces(strings.NewReader(tc.sent)), pace: newPace()}))
			switch {
			case tc.err == errors.ErrUnsupported && err == nil, tc.err != errors.ErrUnsupported && !errors.Is(err, tc.err):
				t.Errorf("%.40q: %v, want %v", tc.sent, err, tc.err)
			case err == nil && string(got) != tc.sent:
				t.Errorf("%.40q became %.40q", tc.sent, got)
			}
		}
	}
}

// TestScram logs in at PostgreSQL with a password.
func TestScram(t *testing.T) {
	t.Parallel()
	p := origintest.NewPostgres(t)
	p.Start(t)
	p.Exec(t, "CREATE ROLE secret LOGIN PASSWORD 's3cret'")
	file, err := source(t, Config{DSN: p.DSN(), Query: "SELECT current_setting($1)"}).Load(t.Context(), []byte("hba_file"))
	testenv.Must(t, err)
	rules, err := os.ReadFile(string(file.Bytes))
	testenv.Must(t, err)
	rules = append([]byte("local all secret scram-sha-256\n"), rules...)
	testenv.Must(t, os.WriteFile(string(file.Bytes), rules, 0o600))
	p.Exec(t, "SELECT pg_reload_conf()")
	load := func(password string) error {
		dsn := strings.Replace(p.DSN(), "tester", "secret password="+password, 1)
		v, err := source(t, Config{DSN: dsn, Query: "SELECT $1::text || current_user"}).Load(t.Context(), []byte("I am "))
		if err == nil && !bytes.Equal(v.Bytes, []byte("I am secret")) {
			err = fmt.Errorf("got %q", v.Bytes)
		}
		return err
	}
	testenv.Succeeds(t, "a wrong password to be refused", func() error { // once the rules are read
		if err := load("wr0ng"); !errors.Is(err, loader.ErrRefused) {
			return fmt.Errorf("a wrong password: %w", err)
		}
		return nil
	})
	testenv.Must(t, load("s3cret"))
}

// TestDrained checks that a connection that pgx ends reads only so much of what still comes.
func TestDrained(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		go func() { // ends with the pipe
			for b := make([]byte, 10_000); ; {
				if _, err := there.Write(b); err != nil {
					return
				}
			}
		}()
		c := &timeoutConn{Conn: here, maxWait: time.Minute}
		defer c.Close()
		for range 2 * maxDrained / 10_000 {
			if _, err := io.ReadFull(c, make([]byte, 10_000)); err != nil {
				t.Fatal("before: ", err)
			}
		}
		testenv.Must(t, c.SetDeadline(time.Now().Add(time.Minute)))
		if n, err := io.Copy(io.Discard, c); !errors.Is(err, net.ErrClosed) || n < maxDrained || n > maxDrained+64<<10 {
			t.Errorf("%d bytes, %v, want %d", n, err, maxDrained)
		}
	})
}
