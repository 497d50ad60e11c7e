package measure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/loader/postgres"
)

// changedRows is how many rows the table of the first two parts has.
const changedRows = 50_000

// Changes measures a feed of changes from PostgreSQL: how long a committed change takes to end the
// cached values of all hosts, how many rows a second it takes in, and what it costs the database. Beside
// it is a program that only reads the same stream.
func (b *Bench) Changes(ctx context.Context, p record.Parameters) error {
	db, err := peers.StartPostgres(ctx, b.dir)
	if err != nil {
		return err
	}
	defer db.Stop()
	b.versions["postgresql"] = db.Version
	c := &changes{Bench: b, p: p, db: db}
	if err := c.prepare(ctx); err != nil {
		return err
	}
	defer c.conn.Close(ctx)
	for round := range p.Rounds {
		if err := c.delays(ctx, round); err != nil {
			return fmt.Errorf("the delay of a commit: %w", err)
		}
		if err := c.readRows(ctx, round); err != nil {
			return fmt.Errorf("rows a second: %w", err)
		}
		if err := c.cost(ctx, round); err != nil {
			return fmt.Errorf("pgbench: %w", err)
		}
	}
	return nil
}

// changes is a database, and the files of the hosts that follow it.
type changes struct {
	*Bench
	p    record.Parameters
	db   *peers.Postgres
	conn *pgx.Conn
}

func (c *changes) prepare(ctx context.Context) (err error) {
	for _, sql := range []string{
		"CREATE TABLE changed (id int PRIMARY KEY, body text)",
		fmt.Sprintf("INSERT INTO changed SELECT i, 'old' FROM generate_series(1, %d) i", changedRows),
		"CREATE PUBLICATION cachesidecar FOR TABLE changed",
	} {
		if err := c.db.Exec(ctx, sql); err != nil {
			return err
		}
	}
	if _, err := c.db.Run(ctx, "pgbench", "-i", "-q", "-s", "2", c.db.DSN()); err != nil {
		return err
	}
	if err := c.db.Exec(ctx, "CREATE PUBLICATION accounts FOR TABLE pgbench_accounts"); err != nil {
		return err
	}
	c.conn, err = pgx.Connect(ctx, c.db.DSN())
	return err
}

// config writes the configuration of hosts that follow a table, and returns its path.
func (c *changes) config(publication, table, key string) (string, error) {
	dsn := filepath.Join(c.dir, "dsn")
	text := fmt.Sprintf(`namespaces:
  default:
    key_pattern: 0|-?[1-9][0-9]*
    origin:
      postgres:
        dsn_file: %[1]s
        query: SELECT body FROM changed WHERE id::text = $1
        connections: 2
changes:
  bench:
    postgres:
      dsn_file: %[1]s
      publication: %[2]s
      tables:
        public.%[3]s: { namespace: default, key: "{%[4]s}" }
`, dsn, publication, table, key)
	path := filepath.Join(c.dir, publication+".yaml")
	return path, errors.Join(os.WriteFile(dsn, []byte(c.db.DSN()), 0o600), os.WriteFile(path, []byte(text), 0o600))
}

// reader begins to read the stream of a publication, through a slot of its own.
func (c *changes) reader(ctx context.Context, publication, table, key string) (loader.FeedStream, error) {
	f, err := postgres.NewFeed(postgres.FeedConfig{
		DSN: c.db.DSN(), Slot: "reader", Publication: publication,
		Tables: map[string]postgres.FeedTable{"public." + table: {Namespace: "default", Key: "{" + key + "}"}},
	})
	if err != nil {
		return nil, err
	}
	s, err := f.Stream(ctx, "", "")
	if err != nil {
		return nil, err
	}
	if err := s.Begun(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// hosts starts hosts with a configuration, and waits until one of them follows the feed.
func (c *changes) hosts(ctx context.Context, n int, config string) (*peers.Cluster, error) {
	cluster, err := peers.StartCluster(ctx, n, 0, peers.Options{Dir: c.dir, Bytes: c.p.Limit, Label: "-changes", Config: config})
	if err != nil {
		return nil, err
	}
	_, err = c.until(ctx, cluster, func(s *cachesidecar.ChangesStats) bool { return s.Following && s.Error == "" })
	if err != nil {
		cluster.Stop()
		return nil, err
	}
	return cluster, nil
}

// followTime is how long a feed may take to get somewhere.
const followTime = time.Minute

// until waits until the feed of one of the hosts is as asked for, and returns its figures.
func (c *changes) until(ctx context.Context, cluster *peers.Cluster, is func(*cachesidecar.ChangesStats) bool) (s cachesidecar.ChangesStats, err error) {
	for end := time.Now().Add(followTime); time.Now().Before(end); time.Sleep(time.Millisecond) {
		for _, h := range cluster.Hosts() {
			st, err := h.App().Stats(ctx)
			if err != nil {
				return s, err
			}
			if s = st.Changes[0]; is(&s) {
				return s, nil
			}
		}
	}
	return s, fmt.Errorf("the feed is not there after %v: %s", followTime, s.Error)
}

// drop drops a slot.
func (c *changes) drop(ctx context.Context, slot string) error {
	return c.db.Exec(ctx, "SELECT pg_drop_replication_slot('"+slot+"')")
}

// delays changes rows that all hosts have, one after the other.
func (c *changes) delays(ctx context.Context, round int) (err error) {
	config, err := c.config("cachesidecar", "changed", "id")
	if err != nil {
		return err
	}
	stream, err := c.reader(ctx, "cachesidecar", "changed", "id")
	if err != nil {
		return err
	}
	got := make(chan time.Time, 1)
	ended := make(chan error, 1)
	reading, stop := context.WithCancel(ctx)
	go func() { // ends with reading
		for {
			t, err := stream.Receive(reading)
			if err != nil {
				ended <- err
				return
			}
			if t != nil {
				stream.Forget(stream.State())
				if stream.Confirm(t.End); t.Rows > 0 {
					got <- time.Now()
				}
			}
		}
	}()
	defer func() {
		stop()
		<-ended
		stream.Close()
		err = errors.Join(err, c.drop(ctx, "reader"), c.drop(ctx, "cachesidecar"))
	}()
	cluster, err := c.hosts(ctx, c.p.Hosts, config)
	if err != nil {
		return err
	}
	defer cluster.Stop()
	hosts, reader := newDelays(), newDelays()
	for n := range c.p.Commits {
		committed, last, err := c.commit(ctx, cluster, n+(round+1)*c.p.Commits)
		if err != nil {
			return err
		}
		_ = hosts.RecordValue(int64(last.Sub(committed)))
		select {
		case at := <-got:
			_ = reader.RecordValue(int64(max(0, at.Sub(committed))))
		case err := <-ended:
			ended <- err
			return fmt.Errorf("the bare reader's stream has ended: %w", err)
		}
	}
	shape := fmt.Sprintf("a COMMIT, %d hosts", c.p.Hosts)
	c.put(shape, record.Feed, percentiles("", "ms", hosts)...)
	c.put(shape, record.BareReader, percentiles("", "ms", reader)...)
	return err
}

// commit changes a row that all hosts have in their caches. It returns when the COMMIT had returned, and
// when no host returned the old value any more.
func (c *changes) commit(ctx context.Context, cluster *peers.Cluster, n int) (committed, last time.Time, err error) {
	id := n%changedRows + 1
	key := strconv.Itoa(id)
	old, err := c.everywhere(ctx, cluster, key)
	if err != nil {
		return committed, last, err
	}
	if _, err = c.conn.Exec(ctx, "UPDATE changed SET body = $2 WHERE id = $1", id, fmt.Sprint(time.Now().UnixNano())); err != nil {
		return committed, last, err
	}
	committed = time.Now()
	for _, h := range cluster.Hosts() {
		for {
			item, err := h.App().Get(ctx, key, cachesidecar.GetOptions{NoLoad: true})
			if errors.Is(err, cachesidecar.ErrNotFound) || err == nil && string(item.Value) != old {
				break
			}
			if err != nil {
				return committed, last, err
			}
			if time.Since(committed) > followTime {
				return committed, last, fmt.Errorf("%s has the old value %v after the commit", h.Node(), followTime)
			}
			nap(pollEach)
		}
	}
	return committed, time.Now(), nil
}

// everywhere has each host keep a key, as its owner or as a copy, and returns the value.
func (c *changes) everywhere(ctx context.Context, cluster *peers.Cluster, key string) (value string, err error) {
	for _, h := range cluster.Hosts() {
		for begun := time.Now(); ; {
			item, err := h.App().Get(ctx, key, cachesidecar.GetOptions{})
			if err != nil {
				return "", err
			}
			if value = string(item.Value); item.Source == "l1" || item.Source == "l2" {
				break
			}
			if time.Since(begun) > followTime {
				return "", fmt.Errorf("%s has no copy of %s after %v", h.Node(), key, followTime)
			}
			nap(pollEach)
		}
	}
	return value, nil
}

// readRows changes many rows while slots keep them, and has each side read them.
func (c *changes) readRows(ctx context.Context, round int) (err error) {
	config, err := c.config("cachesidecar", "changed", "id")
	if err != nil {
		return err
	}
	stream, err := c.reader(ctx, "cachesidecar", "changed", "id")
	if err != nil {
		return err
	}
	stream.Close()
	cluster, err := c.hosts(ctx, 1, config) // makes its slot
	if err != nil {
		return err
	}
	cluster.Stop()
	defer func() { err = errors.Join(err, c.drop(ctx, "reader"), c.drop(ctx, "cachesidecar")) }()
	for i := range c.p.Rows {
		if _, err := c.conn.Exec(ctx, "UPDATE changed SET body = 'new' WHERE id = $1", i%changedRows+1); err != nil {
			return err
		}
	}
	for i := range 2 { // each side first in every other round
		side, perSecond := record.Feed, 0.0
		if (round+1+i)%2 == 0 {
			side = record.BareReader
			perSecond, err = c.readAll(ctx)
		} else {
			perSecond, err = c.followAll(ctx, config)
		}
		if err != nil {
			return err
		}
		c.put(record.Commas(c.p.Rows)+" rows in the log", side, figure{"rows/s", perSecond})
	}
	return nil
}

// readAll returns how many rows a second the bare reader takes, from the first one on.
func (c *changes) readAll(ctx context.Context) (perSecond float64, err error) {
	stream, err := c.reader(ctx, "cachesidecar", "changed", "id")
	if err != nil {
		return 0, err
	}
	defer stream.Close()
	var first time.Time
	for rows := 0; rows < c.p.Rows; {
		t, err := stream.Receive(ctx)
		if err != nil {
			return 0, err
		}
		if t != nil {
			if rows += t.Rows; first.IsZero() && rows > 0 {
				first = time.Now()
			}
		}
	}
	return float64(c.p.Rows) / time.Since(first).Seconds(), nil
}

// followAll returns how many rows a second a host takes, from its last look without a row until all of
// their keys are deleted. A host may take all rows between two looks.
func (c *changes) followAll(ctx context.Context, config string) (perSecond float64, err error) {
	begun := time.Now()
	cluster, err := peers.StartCluster(ctx, 1, 0, peers.Options{Dir: c.dir, Bytes: c.p.Limit, Label: "-changes", Config: config})
	if err != nil {
		return 0, err
	}
	defer cluster.Stop()
	_, err = c.until(ctx, cluster, func(s *cachesidecar.ChangesStats) bool {
		if s.Rows == 0 {
			begun = time.Now()
		}
		return s.Rows >= int64(c.p.Rows) && s.UnderWay == 0
	})
	return float64(c.p.Rows) / time.Since(begun).Seconds(), err
}

// cost runs pgbench with a feed, with a bare reader, and with neither.
func (c *changes) cost(ctx context.Context, round int) error {
	config, err := c.config("accounts", "pgbench_accounts", "aid")
	if err != nil {
		return err
	}
	sides := []string{record.NoStream, record.BareReader, record.Feed}
	for i := range sides {
		name := sides[(round+1+i)%len(sides)]
		perSecond, err := c.pgbench(ctx, name, config)
		if err != nil {
			return err
		}
		c.put("pgbench -N", name, figure{"transactions/s", perSecond})
	}
	return nil
}

// readAside has a bare reader take the stream of pgbench's table until end is called.
func (c *changes) readAside(ctx context.Context) (end func() error, err error) {
	stream, err := c.reader(ctx, "accounts", "pgbench_accounts", "aid")
	if err != nil {
		return nil, err
	}
	reading, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { // ends with reading
		for {
			t, err := stream.Receive(reading)
			if err != nil {
				if reading.Err() != nil {
					err = nil
				}
				ended <- err
				return
			}
			if t != nil {
				stream.Confirm(t.End)
				stream.Forget(stream.State())
			}
		}
	}()
	return func() error {
		stop()
		err := <-ended
		stream.Close()
		return errors.Join(err, c.drop(ctx, "reader"))
	}, nil
}

// tps finds the figure in what pgbench prints.
var tps = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)

func (c *changes) pgbench(ctx context.Context, side, config string) (perSecond float64, err error) {
	end := func() error { return nil }
	switch side {
	case record.BareReader:
		end, err = c.readAside(ctx)
	case record.Feed:
		var cluster *peers.Cluster
		cluster, err = c.hosts(ctx, 1, config)
		end = func() error {
			_, err := c.until(ctx, cluster, func(s *cachesidecar.ChangesStats) bool { return s.UnderWay == 0 && s.LagMS < 1000 })
			cluster.Stop()
			return errors.Join(err, c.drop(ctx, "cachesidecar"))
		}
	}
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, end()) }()
	out, err := c.db.Run(ctx, "pgbench", "-N", "-n", "-c", strconv.Itoa(c.p.Clients), "-T", strconv.Itoa(c.p.Seconds), c.db.DSN())
	if err != nil {
		return 0, err
	}
	m := tps.FindStringSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("pgbench prints no tps: %s", out)
	}
	return strconv.ParseFloat(m[1], 64)
}
