package origintest

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// template is the folder that servers begin with.
var template struct {
	dir  string // empty: each makes its own
	once sync.Once
}

// shared are the servers that tests have one after another.
var shared struct {
	mu   sync.Mutex
	n    int         // how many there were
	free []*Postgres // which run, and have nothing in their database
}

var sharedSettings = []string{"wal_level=logical", "max_prepared_transactions=2", "max_slot_wal_keep_size=1GB"}

// Main is testenv's, for a package that starts many servers. They begin with copies of one folder, and so all
// have the same system identifier.
func Main(m *testing.M) { testenv.Main(withServers{m}) }

type withServers struct{ *testing.M }

func (w withServers) Run() int {
	dir, err := os.MkdirTemp("", "cso")
	if err != nil {
		panic(err)
	}
	template.dir = dir
	status := w.M.Run()
	for _, p := range shared.free {
		p.end()
	}
	_ = os.RemoveAll(dir)
	return status
}

// SharedPostgres returns a server that runs, with sharedSettings and nothing in its database. The test has it for
// itself, and may restart it. The next test has it too, unless this one fails, ends it, or alters its settings: to
// start another one takes longer than most tests. It wants Main.
func SharedPostgres(t testing.TB) *Postgres {
	t.Helper()
	p := takeShared()
	if p == nil {
		shared.mu.Lock()
		shared.n++
		dir := filepath.Join(template.dir, fmt.Sprint(shared.n))
		shared.mu.Unlock()
		testenv.Must(t, os.Mkdir(dir, 0o700))
		p = newPostgres(t, dir)
		p.shared = true
		p.Start(t)
	}
	t.Cleanup(func() {
		if t.Failed() || p.empty() != nil {
			p.end()
			return
		}
		shared.mu.Lock()
		defer shared.mu.Unlock()
		shared.free = append(shared.free, p)
	})
	return p
}

func takeShared() *Postgres {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	last := len(shared.free) - 1
	if last < 0 {
		return nil
	}
	p := shared.free[last]
	shared.free = shared.free[:last]
	return p
}

func (p *Postgres) end() {
	end(p.Process, syscall.SIGQUIT) // its processes end before it does
	_ = os.RemoveAll(p.dir)
}

// empty ends all sessions, and drops all that a test has made. It is an error if the server has ended, or if its
// settings were altered: its processes need not have heard of it.
func (p *Postgres) empty() error {
	ctx, cancel := testenv.Background()
	defer cancel()
	return p.Use(ctx, func(c *pgconn.PgConn) error {
		made, err := c.Exec(ctx, "SELECT format('DROP DATABASE %I', datname) FROM pg_database "+
			"WHERE NOT datistemplate AND datname <> 'postgres'").ReadAll()
		if err != nil {
			return err
		}
		statements := []string{emptyServer}
		for _, row := range made[0].Rows {
			statements = append(statements, string(row[0]))
		}
		for _, sql := range append(statements, emptyDatabase, "DISCARD ALL") {
			if _, err := c.Exec(ctx, sql).ReadAll(); err != nil {
				return err
			}
		}
		return nil
	})
}

const emptyServer = `DO $$ BEGIN
	IF EXISTS (SELECT FROM pg_file_settings WHERE sourcefile LIKE '%auto.conf') THEN
		RAISE 'the settings are altered';
	END IF;
	PERFORM pg_terminate_backend(pid, 10000) FROM pg_stat_activity
		WHERE pid <> pg_backend_pid() AND backend_type IN ('client backend', 'walsender');
	PERFORM pg_drop_replication_slot(slot_name) FROM pg_replication_slots;
END $$`

const emptyDatabase = `DO $$ DECLARE drops text; BEGIN
	FOR drops IN SELECT format('DROP PUBLICATION %I', pubname) FROM pg_publication
		UNION ALL SELECT format('DROP FOREIGN DATA WRAPPER %I CASCADE', fdwname) FROM pg_foreign_data_wrapper
		UNION ALL SELECT format('DROP SCHEMA %I CASCADE', nspname) FROM pg_namespace
			WHERE nspname !~ '^pg_|^information_schema$'
		UNION ALL SELECT format('DROP ROLE %I', rolname) FROM pg_roles WHERE rolname !~ '^pg_|^tester$'
	LOOP EXECUTE drops; END LOOP;
	CREATE SCHEMA public;
	ALTER DATABASE postgres RESET ALL;
	ALTER ROLE tester RESET ALL;
END $$`
