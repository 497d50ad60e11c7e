package origintest

import (
	"context"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// Postgres is a PostgreSQL server, which one test has at a time. It listens only on a socket in its folder.
type Postgres struct {
	// Process is that of the last Start.
	Process *exec.Cmd

	program, dir, data string
	as                 *syscall.SysProcAttr
	shared             bool // see SharedPostgres

	mu   sync.Mutex     // held while a statement runs
	conn *pgconn.PgConn // for the tests' statements: making one costs more than most of them; nil: none
}

// NewPostgres makes the server's folder. It skips the test if PostgreSQL is not
// installed.
func NewPostgres(t testing.TB) *Postgres {
	t.Helper()
	return newPostgres(t, Folder(t))
}

func newPostgres(t testing.TB, dir string) *Postgres {
	t.Helper()
	const install = "apt-get install postgresql"
	p := &Postgres{program: Need(t, "postgres", install), dir: dir}
	p.data = filepath.Join(p.dir, "data")
	initdb := Need(t, "initdb", install)
	if os.Getuid() == 0 { // PostgreSQL refuses to run as root
		u, err := user.Lookup("postgres")
		testenv.Must(t, err)
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		for _, dir := range []string{p.dir, template.dir} {
			if err := os.Chown(dir, uid, gid); dir != "" && err != nil {
				t.Fatal(err)
			}
		}
		p.as = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	if template.dir == "" {
		p.initdb(t, initdb, p.data)
		return p
	}
	template.once.Do(func() { p.initdb(t, initdb, filepath.Join(template.dir, "data")) })
	p.command(t, exec.Command("cp", "-a", filepath.Join(template.dir, "data"), p.data))
	return p
}

func (p *Postgres) initdb(t testing.TB, program, dir string) {
	t.Helper()
	p.command(t, exec.Command(program, "-D", dir, "-U", "tester",
		"-A", "trust", "-E", "UTF8", "--no-sync", "--no-locale",
		"--wal-segsize=1")) // MB; each server fills several with zeros
}

// command runs a program to its end.
func (p *Postgres) command(t testing.TB, c *exec.Cmd) {
	t.Helper()
	c.SysProcAttr, c.Dir = p.as, p.dir
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", c.Path, err, out)
	}
}

// Start starts the server with further settings, name=value, waits until it answers, and returns its
// process. If the process is killed, its data stays for the next Start.
func (p *Postgres) Start(t testing.TB, settings ...string) *exec.Cmd {
	t.Helper()
	server := exec.Command(p.program, "-D", p.data, "-k", p.dir)
	if p.shared {
		settings = append(settings, sharedSettings...)
	}
	for _, s := range append([]string{
		"listen_addresses=", "fsync=off", "full_page_writes=off", "autovacuum=off", "max_connections=100",
		"shared_buffers=4MB",
	}, settings...) {
		server.Args = append(server.Args, "-c", s)
	}
	server.SysProcAttr, server.Dir = p.as, p.dir
	p.conn, p.Process = nil, server // the connection was of the process before
	testenv.Must(t, server.Start())
	if !p.shared {
		t.Cleanup(func() { end(server, syscall.SIGKILL) })
	}
	awaitSocket(t, server, p.Socket())
	p.Exec(t, "SELECT 1") // the socket is there before the server answers
	return server
}

// Socket returns the path of the server's socket.
func (p *Postgres) Socket() string { return filepath.Join(p.dir, ".s.PGSQL.5432") }

// DSN returns the connection string. The server accepts any password.
func (p *Postgres) DSN() string { return "host=" + p.dir + " user=tester dbname=postgres" }

// Pooler starts PgBouncer in front of the server, and returns its connection string. Each
// transaction may reach another one of its few connections to the server. It skips the test if
// PgBouncer is not installed.
func (p *Postgres) Pooler(t testing.TB) (dsn string) {
	t.Helper()
	const port = "6432"
	program, ini := Need(t, "pgbouncer", "apt-get install pgbouncer"), filepath.Join(p.dir, "pgbouncer.ini")
	settings := "[databases]\npostgres = host=" + p.dir + " user=tester\n" +
		"[pgbouncer]\nlisten_addr =\nlisten_port = " + port + "\nunix_socket_dir = " + p.dir +
		"\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n" +
		"server_round_robin = 1\n"
	testenv.Must(t, os.WriteFile(ini, []byte(settings), 0o644))
	pooler := exec.Command(program, "-q", ini)
	pooler.SysProcAttr, pooler.Dir = p.as, p.dir
	Start(t, pooler, filepath.Join(p.dir, ".s.PGSQL."+port))
	return p.DSN() + " port=" + port
}

// Exec runs statements. It retries while the server starts or recovers from a crash.
func (p *Postgres) Exec(t testing.TB, sql string) {
	t.Helper()
	ctx := testenv.Context(t)
	testenv.Succeeds(t, sql, func() error {
		err := p.try(ctx, sql)
		if err != nil && !strings.Contains(err.Error(), "SQLSTATE 57P03") {
			t.Fatal(err)
		}
		return err
	})
}

func (p *Postgres) try(ctx context.Context, sql string) error {
	return p.Use(ctx, func(c *pgconn.PgConn) error {
		_, err := c.Exec(ctx, sql).ReadAll()
		return err
	})
}

// Use lends the connection that the tests' statements share. It is made where there is none, or where the
// last use has broken it.
func (p *Postgres) Use(ctx context.Context, use func(*pgconn.PgConn) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn == nil || p.conn.IsClosed() {
		c, err := pgconn.Connect(ctx, p.DSN())
		if err != nil {
			return err
		}
		p.conn = c
	}
	return use(p.conn)
}

// Demote makes a server that does not run a standby of nobody, which can be promoted.
func (p *Postgres) Demote(t testing.TB) {
	t.Helper()
	testenv.Must(t, os.WriteFile(filepath.Join(p.data, "standby.signal"), nil, 0o644))
}

// Standby makes a standby of the server, which must run. Start starts it.
func (p *Postgres) Standby(t testing.TB) *Postgres {
	t.Helper()
	s := &Postgres{program: p.program, dir: Folder(t), as: p.as}
	s.data = filepath.Join(s.dir, "data")
	if s.as != nil {
		testenv.Must(t, os.Chown(s.dir, int(s.as.Credential.Uid), int(s.as.Credential.Gid)))
	}
	s.command(t, exec.Command(Need(t, "pg_basebackup", "apt-get install postgresql"), "-h", p.dir, "-U", "tester",
		"-D", s.data, "-R", "--no-sync", "-c", "fast"))
	return s
}
