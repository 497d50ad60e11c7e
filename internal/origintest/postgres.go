package origintest

import (
	"context"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Postgres is a PostgreSQL of the test's own, which listens in a folder alone.
type Postgres struct {
	program, dir, data string
	as                 *syscall.SysProcAttr
}

// NewPostgres makes its folder, or skips the test where it is not installed.
func NewPostgres(t testing.TB) *Postgres {
	t.Helper()
	const install = "apt-get install postgresql"
	p := &Postgres{program: Need(t, "postgres", install), dir: Folder(t)}
	p.data = filepath.Join(p.dir, "data")
	initdb := exec.Command(Need(t, "initdb", install), "-D", p.data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-locale")
	if os.Getuid() == 0 { // PostgreSQL refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		if err := os.Chown(p.dir, uid, gid); err != nil {
			t.Fatal(err)
		}
		p.as = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	initdb.SysProcAttr, initdb.Dir = p.as, p.dir
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	return p
}

// Start returns the server; one that is killed leaves what the next one needs.
func (p *Postgres) Start(t testing.TB) *exec.Cmd {
	t.Helper()
	server := exec.Command(p.program, "-D", p.data, "-k", p.dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=100", "-c", "shared_buffers=4MB")
	server.SysProcAttr, server.Dir = p.as, p.dir
	Start(t, server, p.Socket())
	return server
}

// Socket is where it listens.
func (p *Postgres) Socket() string { return filepath.Join(p.dir, ".s.PGSQL.5432") }

// DSN is how it is connected to. Any password is taken.
func (p *Postgres) DSN() string { return "host=" + p.dir + " user=tester dbname=postgres" }

// Exec runs statements once the server takes them: after a crash it recovers.
func (p *Postgres) Exec(t testing.TB, sql string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		err := p.try(sql)
		if err == nil {
			return
		}
		if time.Now().After(end) || !strings.Contains(err.Error(), "SQLSTATE 57P03") {
			t.Fatal(err)
		}
	}
}

func (p *Postgres) try(sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, p.DSN())
	if err != nil {
		return err
	}
	_, err = c.Exec(ctx, sql)
	_ = c.Close(ctx)
	return err
}
