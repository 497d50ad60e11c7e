package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestNoSecretIsShown checks that no message about a configuration contains a secret,
// even if the secret is in a wrong place or other settings are wrong too.
func TestNoSecretIsShown(t *testing.T) {
	const marker = "s3cret"
	dir := tempDir(t)
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		testenv.Must(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	password := write("password", marker+"\n")
	lines := write("lines", marker+"\nX-More: "+marker)
	long := write("long", strings.Repeat(marker, 20_000))
	dsn := write("dsn", "postgres://u:"+marker+"@h/d\n")
	key := write("key", "-----BEGIN PRIVATE KEY-----\n"+marker+"\n-----END PRIVATE KEY-----\n")
	t.Setenv("CACHESIDECAR_TEST_SECRET", marker)
	t.Setenv("CACHESIDECAR_TEST_LINES", marker+"\n"+marker)
	t.Setenv("CACHESIDECAR_TEST_DSN", "host=h password="+marker+" sslmode=what")

	const web, query = "url: 'http://h/{key}', ", "query: SELECT $1, "
	for _, tc := range []struct {
		name, origin string
		want         string // "": valid
	}{
		{"a file", "http: {" + web + "header_files: {Authorization: " + password + "}}", ""},
		{"a DSN", "postgres: {" + query + "dsn_file: " + dsn + "}", ""},
		{"a variable", "redis: {address: 'h:1', password_env: CACHESIDECAR_TEST_SECRET}", ""},
		{"a variable for a command", "exec: {command: ['true'], env: [CACHESIDECAR_TEST_SECRET]}", ""},

		{"a file that is too long", "redis: {address: 'h:1', password_file: " + long + "}", "it has more than 65536 bytes"},
		{"a header of two lines", "http: {" + web + "header_files: {X-A: " + lines + "}}", "X-A: the value has line breaks"},
		{"no DSN at all", "postgres: {" + query + "dsn_file: " + lines + "}", "its DSN cannot be read"},
		{"a DSN that is wrong", "postgres: {" + query + "dsn_env: CACHESIDECAR_TEST_DSN}", "its DSN cannot be read"},
		{"no DSN in a variable", "postgres: {" + query + "dsn_env: CACHESIDECAR_TEST_LINES}", "its DSN cannot be read"},
		{"a file and a variable", "redis: {address: 'h:1', password_file: " + password + ", password_env: CACHESIDECAR_TEST_SECRET}", "password_file and password_env are given"},
		{"a key that is none", "redis: {address: 'h:1', tls: true, tls_cert_file: " + key + ", tls_key_file: " + key + "}", "give a certificate and its key, in PEM"},
		{"something else is wrong", "postgres: {query: SELECT, dsn_file: " + dsn + "}", "query: it must have $1"},

		{"in place of its file", "redis: {address: 'h:1', password_file: s3cret}", "password_file: give the whole path"},
		{"in place of its variable", "redis: {address: 'h:1', password_env: s3cret}", "password_env: give the name of an environment variable"},
		{"a DSN in place of its file", "postgres: {" + query + "dsn_file: 'postgres://u:s3cret@h/d'}", "dsn_file: give the whole path"},
		{"a DSN in place of its variable", "postgres: {" + query + "dsn_env: 'host=h password=s3cret'}", "dsn_env: give the name of an environment variable"},
		{"a header in place of its file", "http: {" + web + "header_files: {Authorization: Bearer s3cret}}", "Authorization: give the whole path"},
		{"a header", "http: {" + web + "headers: {Authorization: Bearer s3cret}}", "headers.Authorization is a secret"},
		{"a header of two lines in place", "http: {" + web + "headers: {X-A: \"a\\ns3cret\"}}", "X-A: the value has line breaks"},
		{"a header's list", "http: {" + web + "headers: {X-A: [s3cret]}}", "give text, not a list"},
		{"in the URL", "http: {url: 'http://u:s3cret@h/{key}'}", "url: it has a user or password"},
		{"in a broken URL", "http: {url: 'http://u:s3cret@h:port/{key}'}", "http origin: its URL must begin with"},
		{"in a URL's query without a key", "http: {url: 'http://h/?token=s3cret'}", "its URL must have {key} once"},
		{"in the URL of a Redis", "redis: {address: 'redis://:s3cret@h:6379'}", "address: give host:port"},
		{"in an address", "redis: {address: ':s3cret@h:6379'}", "address: give host:port"},
		{"in the URL of a memcached", "memcached: {servers: ['u:s3cret@h:1']}", "servers: give host:port"},
		{"in a variable's name", "exec: {command: ['true'], env: ['a s3cret']}", "env: give the name of an environment variable"},
		{"a variable that has no name", "exec: {command: ['true'], env: ['s3cret=s3cret']}", "env: give the name of an environment variable"},
		{"as a setting there is not", "redis: {address: 'h:1', password: s3cret}", `"password" is no setting of redis`},
		{"in place of a kind's settings", "postgres: s3cret", "postgres: give settings, such as "},
		{"in place of headers", "http: {" + web + "header_files: s3cret}", "give names, each with its value, not a text"},
		{"in place of an origin", "s3cret", "give settings, such as http, "},
	} {
		file := write("c.yaml", fmt.Sprintf("namespaces: {a: {origin: {%s}}}\n", tc.origin))
		if !strings.Contains(tc.origin, ": ") {
			file = write("c.yaml", "namespaces: {a: {origin: "+tc.origin+"}}\n")
		}
		outcomes := []outcome{command(t, "", "config", "check", file)}
		if tc.want != "" {
			outcomes = append(outcomes, command(t, "", "run", "--config", file, "--socket", filepath.Join(dir, "s")))
		}
		for _, o := range outcomes {
			if strings.Contains(o.out+o.err, marker) {
				t.Errorf("%s: the secret is shown: %.500s", tc.name, o)
			}
			if !strings.Contains(o.err, tc.want) || (o.status == exitDone) != (tc.want == "") {
				t.Errorf("%s: %.500s\nwant %q", tc.name, o, tc.want)
			}
		}
	}
}

// repeat serves connections: it sends the input back in an error.
func repeat(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() { // ends with the client's connection
			defer c.Close()
			b := make([]byte, 4096)
			for n, err := c.Read(b); err == nil; n, err = c.Read(b) {
				fmt.Fprintf(c, "-ERR_unknown:%s\r\n", strings.Join(strings.Fields(string(b[:n])), "_"))
			}
		}()
	}
}

// TestNoSecretIsTold checks the sidecar's output while its origins fail and send back
// what they received: no secret is in answers, stats, metrics and the log.
func TestNoSecretIsTold(t *testing.T) {
	const marker = "s3cret"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testenv.Must(t, err)
	defer l.Close()
	address := l.Addr().String()
	go repeat(l) // ends with the listener
	admin := testenv.FreeAddress(t)
	dir := tempDir(t)
	password, file := filepath.Join(dir, "password"), filepath.Join(dir, "c.yaml")
	text := fmt.Sprintf(`
namespaces:
  redis: {origin: {redis: {address: '%[1]s', password_file: %[2]s}}}
  http: {origin: {http: {url: 'http://%[1]s/{key}', header_files: {X-Token: %[2]s}}}}
  exec: {origin: {exec: {command: [sh, -c, 'echo "no $TEST_SECRET" >&2; exit 7', --], env: [TEST_SECRET]}}}
  gone: {origin: {redis: {address: '127.0.0.1:1', password_file: %[2]s}}}
`, address, password)
	for path, text := range map[string]string{password: marker + "\n", file: text} {
		testenv.Must(t, os.WriteFile(path, []byte(text), 0o600))
	}
	t.Setenv("TEST_SECRET", marker)
	p := runSidecar(t, "--config", file, "--http", admin, "--log-level", "debug")
	details := map[string]string{"redis": "(secret)", "http": "X-Token:_(secret)", "exec": "no (secret)", "gone": "127.0.0.1"}
	for ns, kind := range map[string]string{"redis": "redis", "http": "http", "exec": "exec", "gone": "redis"} {
		o := p.at("get", "k", "--ns", ns)
		if strings.Contains(o.out+o.err, marker) {
			t.Errorf("%s: the answer shows it: %v", ns, o)
		}
		if want := fmt.Sprintf("origin %q (%s): ", ns, kind); o.status == exitDone || !strings.Contains(o.err, want) || strings.Contains(o.err, details[ns]) {
			t.Errorf("%s: %v, want %q and no details", ns, o, want)
		}
	}
	told := map[string]string{"stats": p.at("stats").out, "stats --json": p.at("stats", "--json").out}
	testenv.Succeeds(t, "metrics", func() error {
		r, err := (&http.Client{Timeout: testenv.Patience, Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + admin + "/metrics")
		if err != nil {
			return err
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		told["metrics"] = string(b)
		return err
	})
	p.terminate()
	told["the log"] = p.log.String()
	for ns, want := range details {
		if !slices.ContainsFunc(p.logged("WARN", time.Time{}), func(l map[string]any) bool {
			text, _ := l["error"].(string)
			return l["namespace"] == ns && strings.Contains(text, want)
		}) {
			t.Errorf("%s: the log lacks %q", ns, want)
		}
	}
	for what, text := range told {
		// An origin's library must not write to stderr besides the log.
		if strings.Contains(text, marker) || strings.Contains(text, "pool.go") || text == "" {
			t.Errorf("%s: %s", what, text)
		}
	}
}

// TestLengthySecretFilesAreClosed checks that a secret's file is refused if other users may read
// or change it, or if it is not a regular file: by "config check", and by a starting
// sidecar. Certificates are not secrets.
func TestLengthySecretFilesAreClosed(t *testing.T) {
	testenv.Takes(t, 10*time.Second)
	dir := tempDir(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	cert, key := selfSigned(t)
	for name, text := range map[string]string{
		"dsn": "postgres://u:p@127.0.0.1:1/d", "password": "s3cret", "header": "Bearer s3cret", "token": "0123456789abcdef",
		"cert": cert, "key": key,
	} {
		testenv.Must(t, os.WriteFile(file(name), []byte(text+"\n"), 0o600))
	}
	testenv.Must(t, os.Chmod(file("cert"), 0o644))
	testenv.Must(t, syscall.Mkfifo(file("pipe"), 0o600))
	const web = "http: {url: 'http://127.0.0.1:1/{key}', header_files: {X-Token: %s}}"
	origin := func(text string) string { return "namespaces: {a: {origin: {" + text + "}}}\n" }
	tls := "redis: {address: '127.0.0.1:1', tls: true, tls_ca_file: " + file("cert") + ", tls_cert_file: " + file("cert") + ", tls_key_file: %s}"
	config := file("c.yaml")
	for _, tc := range []struct{ name, secret, text string }{
		{"dsn_file", "dsn", origin("postgres: {query: 'SELECT $1', dsn_file: %s}")},
		{"password_file", "password", origin("redis: {address: '127.0.0.1:1', password_file: %s}")},
		{"header_files.X-Token", "header", origin(web)},
		{"tls_key_file", "key", origin(tls)},
		{"tokens.web.file", "token", "tokens: {web: {file: %s}}\n"},
	} {
		try := func(path, want string) {
			t.Helper()
			testenv.Must(t, os.WriteFile(config, fmt.Appendf(nil, tc.text, path), 0o600))
			o := runBinary(t, "config", "check", config)
			if want == "" {
				if o.status != exitDone {
					t.Errorf("%s: %v", tc.name, o)
				}
				return
			}
			started := runBinary(t, "run", "--config", config, "--socket", file("s"), "--http", "off")
			for _, o := range []outcome{o, started} {
				if o.status == exitDone || !strings.Contains(o.err, tc.name+" "+path+": ") || !strings.Contains(o.err, want) {
					t.Errorf("%s: %v\nwant %q", tc.name, o, want)
				}
			}
		}
		for mode, want := range map[os.FileMode]string{
			0o600: "", 0o640: "",
			0o644: "it contains a secret and has mode 0644, which lets other users read or change it: chmod 0640 it, or 0600",
			0o660: "chmod 0640 it, or 0600",
		} {
			testenv.Must(t, os.Chmod(file(tc.secret), mode))
			try(file(tc.secret), want)
		}
		try(file("pipe"), "it is no regular file")
		try("/dev/zero", "it is no regular file")
		if os.Getuid() == 0 {
			testenv.Must(t, errors.Join(os.Chmod(file(tc.secret), 0o600), os.Chown(file(tc.secret), 65534, 65534)))
			testenv.Must(t, os.WriteFile(config, fmt.Appendf(nil, tc.text, file(tc.secret)), 0o600))
			const want = "it contains a secret and belongs to uid 65534: chown it to uid 0"
			if o := runBinary(t, "run", "--config", config, "--socket", file("s"), "--http", "off"); o.status == exitDone || !strings.Contains(o.err, want) {
				t.Errorf("%s: run by root: %v\nwant %q", tc.name, o, want)
			}
		}
	}
}

// TestConfigCheckByRoot checks that root's "config check" reads a configuration as the
// user that owns a secret's file, and that this user must be able to read all of it.
func TestConfigCheckByRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root")
	}
	dir := tempDir(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string, mode os.FileMode, uid int) {
		t.Helper()
		testenv.Must(t, errors.Join(os.WriteFile(file(name), []byte(text), 0o600), os.Chmod(file(name), mode), os.Chown(file(name), uid, uid)))
	}
	testenv.Must(t, os.Chmod(dir, 0o755))
	write("one", "0123456789abcdef one\n", 0o600, 65534)
	write("two", "0123456789abcdef two\n", 0o600, 65534)
	write("key", "key: "+strings.Repeat("ab", 32)+"\nseed: 0123456789abcdef\n", 0o600, 65534)
	write("group", "0123456789abcdef group\n", 0o640, 65534)
	write("another", "0123456789abcdef another\n", 0o600, 65533)
	write("roots", "0123456789abcdef roots\n", 0o600, 0)
	testenv.Must(t, os.Chown(file("group"), 0, 65534))
	const note = "Checked as uid 65534, to which a file with a secret belongs: run the sidecar as that user."
	for _, tc := range []struct {
		text string
		mode os.FileMode
		want string // "": valid
	}{
		{"tokens: {a: {file: one}, b: {file: two}}", 0o644, ""},
		{"cluster_key_file: key", 0o644, ""},
		{"tokens: {a: {file: one}, b: {file: group}}", 0o644, ""},
		{"tokens: {a: {file: one}, b: {file: another}}", 0o644, "another: permission denied"},
		{"tokens: {a: {file: one}, b: {file: roots}}", 0o644, "roots: permission denied"},
		{"tokens: {a: {file: one}}", 0o600, "c.yaml: permission denied"},
	} {
		text := tc.text
		for _, name := range []string{"one", "two", "key", "group", "another", "roots"} {
			text = strings.ReplaceAll(text, ": "+name, ": "+file(name))
		}
		write("c.yaml", text+"\n", tc.mode, 0)
		o := runBinary(t, "config", "check", file("c.yaml"))
		if (o.status == exitDone) != (tc.want == "") || !strings.Contains(o.err, note) || !strings.Contains(o.err, tc.want) || (o.out == "ok\n") != (tc.want == "") {
			t.Errorf("%s: %v\nwant %q", tc.text, o, tc.want)
		}
	}
}

// selfSigned makes a certificate and its key, in PEM.
func selfSigned(t testing.TB) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	testenv.Must(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{}, &private.PublicKey, private)
	testenv.Must(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	testenv.Must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}
