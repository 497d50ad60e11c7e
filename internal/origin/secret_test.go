package origin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/loader/execorigin"
	"github.com/cachesidecar/cachesidecar/loader/httporigin"
	"github.com/cachesidecar/cachesidecar/loader/postgres"
	"github.com/cachesidecar/cachesidecar/loader/redisorigin"
)

// talking returns the address of a server that runs f on each connection.
func talking(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testenv.Must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // ends with the client's connection
				defer c.Close()
				f(c)
			}()
		}
	}()
	return l.Addr().String()
}

// repeating returns a server that repeats what it receives, after some words.
func repeating(before string) func(net.Conn) {
	return func(c net.Conn) {
		b := make([]byte, 4096)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			said := strings.NewReplacer("\r", "_", "\n", "_", " ", "_").Replace(string(b[:n]))
			if _, err := fmt.Fprintf(c, "%s%s\r\n", before, said); err != nil {
				return
			}
		}
	}
}

// pgEcho is a PostgreSQL server that asks for the password, and repeats it.
func pgEcho(c net.Conn) {
	message := func() []byte {
		var length [4]byte
		if _, err := io.ReadFull(c, length[:]); err != nil {
			return nil
		}
		b := make([]byte, max(4, binary.BigEndian.Uint32(length[:]))-4)
		_, _ = io.ReadFull(c, b)
		return b
	}
	message() // the startup message
	_, _ = c.Write([]byte{'R', 0, 0, 0, 8, 0, 0, 0, 3})
	_, _ = io.ReadFull(c, make([]byte, 1))
	text := "SFATAL\x00C28P01\x00Mwrong: " + strings.TrimRight(string(message()), "\x00") + "\x00\x00"
	_, _ = c.Write(append(binary.BigEndian.AppendUint32([]byte{'E'}, uint32(len(text)+4)), text...))
}

// A server may repeat what it was sent, and a command may print anything. No error of a
// load, or of a check, shows a secret.
func TestNoErrorShowsASecret(t *testing.T) {
	const marker = `s3cret"\word`
	t.Setenv("CACHESIDECAR_TEST_SECRET", marker)
	refusing := talking(t, func(net.Conn) {})
	ofPostgres := func(address string) loader.OriginConfig {
		host, port, _ := net.SplitHostPort(address)
		dsn := fmt.Sprintf(`host=%s port=%s user=u dbname=d sslmode=disable password='s3cret"\\word'`, host, port)
		return &postgres.Config{DSNFile: testenv.File(t, dsn), Query: "SELECT $1"}
	}
	ofHTTP := func(address string) loader.OriginConfig {
		return &httporigin.Config{URL: "http://" + address + "/{key}", HeaderFiles: map[string]string{"X-Token": testenv.File(t, marker)}}
	}
	ofRedis := func(address string) loader.OriginConfig {
		return &redisorigin.Config{Address: address, PasswordEnv: "CACHESIDECAR_TEST_SECRET"}
	}
	ofExec := func(script string) loader.OriginConfig {
		return &execorigin.Config{Command: []string{"sh", "-c", script}, Env: []string{"CACHESIDECAR_TEST_SECRET"}}
	}
	for _, tc := range []struct {
		name   string
		origin loader.OriginConfig
		hides  bool // the secret must have been in the text
	}{
		{"http repeats", ofHTTP(talking(t, repeating(""))), true},
		{"http hangs up", ofHTTP(refusing), false},
		{"redis repeats", ofRedis(talking(t, repeating("-WRONGPASS for "))), true},
		{"redis repeats a command", ofRedis(talking(t, repeating("-ERR unknown command, with args "))), false},
		{"redis hangs up", ofRedis(refusing), false},
		{"postgres repeats", ofPostgres(talking(t, pgEcho)), true},
		{"postgres hangs up", ofPostgres(refusing), false},
		{"a command says it", ofExec(`echo "no $CACHESIDECAR_TEST_SECRET" >&2; exit 3`), true},
		{"a command is silent", ofExec(`exit 3`), false},
	} {
		var log strings.Builder
		o, err := Open("a", Settings{Origin: tc.origin}, nil, Host{MaxValue: 1 << 20, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		errs := map[string]error{}
		_, told := o.Guard.Load(t.Context(), []byte("k"))
		if told == nil || strings.Contains(told.Error(), "secret") || strings.Contains(told.Error(), "127.0.0.1") {
			t.Errorf("%s: apps are told %v", tc.name, told)
		}
		errs["load"] = errors.New(log.String())
		if len(o.checkers) > 0 {
			errs["check"] = o.Check(t.Context())
		}
		for what, err := range errs {
			if err == nil || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), `\word`) {
				t.Errorf("%s: %s: %v", tc.name, what, err)
			} else if tc.hides != strings.Contains(err.Error(), "(secret)") {
				t.Errorf("%s: %s: %v, want the secret to be left out: %v", tc.name, what, err, tc.hides)
			}
		}
		if err := o.Close(); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// A long text is cut after the secrets are out of it.
func TestLongErrorsAreCut(t *testing.T) {
	text := strings.Repeat("s3cret é", 500_000)
	got := Secrets{"s3cret"}.Hide(fmt.Errorf("%w: %s", loader.ErrPermanent, text)).Error()
	if len(got) > maxText+100 || strings.Contains(got, "s3c") || !utf8.ValidString(got) || !strings.HasSuffix(got, "… (5500020 bytes)") {
		t.Errorf("%d bytes, %q … %q", len(got), got[:40], got[len(got)-40:])
	}
}

// An error keeps its kind if a secret is removed from its text.
func TestHiddenErrorsKeepTheirKind(t *testing.T) {
	err := Secrets{"", "s3cret"}.Hide(fmt.Errorf("%w: k is s3cret", loader.ErrPermanent))
	if !errors.Is(err, loader.ErrPermanent) || err.Error() != "the origin refuses: k is (secret)" {
		t.Errorf("%v", err)
	}
}
