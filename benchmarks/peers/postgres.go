package peers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Postgres is a PostgreSQL server with a log for feeds (wal_level=logical) and its defaults otherwise.
// It listens on a socket in its folder alone.
type Postgres struct {
	Version string

	dir string
	as  *syscall.SysProcAttr // PostgreSQL refuses to run as root
	process
}

// StartPostgres makes an empty server in a folder of its own below dir, and starts it.
func StartPostgres(ctx context.Context, dir string) (*Postgres, error) {
	p := &Postgres{dir: filepath.Join(dir, "postgres")}
	if err := os.Mkdir(p.dir, 0o755); err != nil {
		return nil, err
	}
	if err := p.own(dir); err != nil {
		return nil, err
	}
	if _, err := p.Run(ctx, "initdb", "-D", p.data(), "-U", "bench", "-A", "trust", "-E", "UTF8", "--no-locale"); err != nil {
		return nil, err
	}
	program, err := postgresProgram("postgres")
	if err != nil {
		return nil, err
	}
	p.cmd = exec.Command(program, "-D", p.data(), "-k", p.dir, "-c", "listen_addresses=", "-c", "wal_level=logical")
	p.cmd.SysProcAttr, p.cmd.Dir = p.as, p.dir
	if err := p.begin(); err != nil {
		return nil, err
	}
	for end := time.Now().Add(startTime); ; time.Sleep(10 * time.Millisecond) {
		if out, err := p.Run(ctx, "psql", p.DSN(), "-Atc", "SHOW server_version"); err == nil {
			p.Version, _, _ = strings.Cut(strings.TrimSpace(out), " ")
			return p, nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			p.Stop()
			return nil, fmt.Errorf("postgres does not answer after %v: %s", startTime, p.said())
		}
	}
}

// own gives the folder to the user of the server.
func (p *Postgres) own(parent string) error {
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return fmt.Errorf("postgres does not run as root: %w: apt-get install postgresql", err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	p.as = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	return errors.Join(os.Chmod(parent, 0o711), os.Chown(p.dir, uid, gid))
}

func (p *Postgres) data() string { return filepath.Join(p.dir, "data") }

// DSN returns the connection string.
func (p *Postgres) DSN() string { return "host=" + p.dir + " user=bench dbname=postgres" }

// Run runs one of PostgreSQL's programs as the user of the server, and returns what it prints.
func (p *Postgres) Run(ctx context.Context, name string, args ...string) (string, error) {
	program, err := postgresProgram(name)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr, cmd.Dir = p.as, p.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// Exec runs a statement.
func (p *Postgres) Exec(ctx context.Context, sql string) error {
	_, err := p.Run(ctx, "psql", p.DSN(), "-Atqc", sql, "-v", "ON_ERROR_STOP=1")
	return err
}

// Stop ends the server and all connections, and waits.
func (p *Postgres) Stop() { p.end(syscall.SIGINT) }

// postgresProgram finds a program. Debian keeps those of each version in a folder of its own.
func postgresProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(found) == 0 {
		return "", fmt.Errorf("%s is %w: apt-get install postgresql", name, ErrNotInstalled)
	}
	return slices.Max(found), nil
}
