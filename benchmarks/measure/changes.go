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
func (b *Bench) Changes(ctx context.Context, p record.Parameters) {
	db := must(peers.StartPostgres(ctx, b.dir))
	b.closes(db.Stop)
	b.versions["postgresql"] = db.Version
	c := &changes{Bench: b, p: p, db: db}
	c.prepare(ctx)
	for round := range p.Rounds {
		within("the delay of a commit", func() { c.delays(ctx, round) })
		within("rows a second", func() { c.readRows(ctx, round) })
		within("pgbench", func() { c.cost(ctx, round) })
	}
}

// changes is a database, and the files of the hosts that follow it.
type changes struct {
	*Bench
	p    record.Parameters
	db   *peers.Postgres
	conn *pgx.Conn
}

func (c *changes) prepare(ctx context.Context) {
	for _, sql := range []string{
		"CREATE TABLE changed (id int PRIMARY KEY, body text)",
		fmt.Sprintf("INSERT INTO changed SELECT i, 'old' FROM generate_series(1, %d) i", changedRows),
		"CREATE PUBLICATION cachesidecar FOR TABLE changed",
	} {
		check(c.db.Exec(ctx, sql))
	}
	must(c.db.Run(ctx, "pgbench", "-i", "-q", "-s", "2", c.db.DSN()))
	check(c.db.Exec(ctx, "CREATE PUBLICATION accounts FOR TABLE pgbench_accounts"))
	c.conn = must(pgx.Connect(ctx, c.db.DSN()))
	c.closes(func() { _ = c.conn.Close(ctx) })
}

// config writes the configuration of hosts that follow a table, and returns its path.
func (c *changes) config(publication, table, key string) string {
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
	check(os.WriteFile(dsn, []byte(c.db.DSN()), 0o600))
	check(os.WriteFile(path, []byte(text), 0o600))
	return path
}

// reader begins to read the stream of a publication, through a slot of its own, until the end of the scope.
func (c *changes) reader(ctx context.Context, publication, table, key string) loader.FeedStream {
	f := must(postgres.NewFeed(postgres.FeedConfig{
		DSN: c.db.DSN(), Slot: "reader", Publication: publication,
		Tables: map[string]postgres.FeedTable{"public." + table: {Namespace: "default", Key: "{" + key + "}"}},
	}))
	s := must(f.Stream(ctx, "", ""))
	c.closes(s.Close)
	check(s.CloseGap(ctx))
	return s
}

// follow has a bare reader take a stream until the end of the scope. It tells of each transaction with rows, and of
// the stream's end.
func (c *changes) follow(ctx context.Context, publication, table, key string, onRows func()) (ended chan error) {
	c.dropsAtEnd(ctx, "reader")
	stream := c.reader(ctx, publication, table, key)
	reading, stop := context.WithCancel(ctx)
	ended = make(chan error, 1)
	go func() { // ends with reading
		for {
			t, err := stream.Receive(reading)
			if err != nil {
				ended <- err
				return
			}
			if t != nil {
				stream.Forget(stream.Checkpoint())
				if stream.Confirm(t.End); t.Rows > 0 {
					onRows()
				}
			}
		}
	}()
	c.closes(func() {
		early := reading.Err() == nil && len(ended) > 0
		stop()
		if err := <-ended; early {
			fail("the bare reader's stream has ended: %w", err)
		}
	})
	return ended
}

// hosts starts hosts with a configuration, and waits until one of them follows the feed.
func (c *changes) hosts(ctx context.Context, n int, config string) *peers.Cluster {
	cluster := c.startHosts(ctx, n, 0, peers.Options{Dir: c.dir, Bytes: c.p.Limit, Label: "-changes", Config: config})
	c.await(ctx, cluster, func(s *cachesidecar.ChangesStats) bool { return s.Following && s.Error == "" })
	return cluster
}

// followTime is how long a feed may take to get somewhere.
const followTime = time.Minute

// await waits until the feed of one of the hosts is as asked for.
func (c *changes) await(ctx context.Context, cluster *peers.Cluster, is func(*cachesidecar.ChangesStats) bool) {
	var s cachesidecar.ChangesStats
	for end := time.Now().Add(followTime); time.Now().Before(end); time.Sleep(time.Millisecond) {
		for _, h := range cluster.Hosts() {
			if s = must(h.App().Stats(ctx)).Changes[0]; is(&s) {
				return
			}
		}
	}
	fail("the feed is not there after %v: %s", followTime, s.Error)
}

// dropsAtEnd drops a slot at the end of the scope.
func (c *changes) dropsAtEnd(ctx context.Context, slot string) {
	c.closes(func() { check(c.db.Exec(ctx, "SELECT pg_drop_replication_slot('"+slot+"')")) })
}

// delays changes rows that all hosts have, one after the other.
func (c *changes) delays(ctx context.Context, round int) {
	defer c.scope()()
	got := make(chan time.Time, 1)
	ended := c.follow(ctx, "cachesidecar", "changed", "id", func() { got <- time.Now() })
	c.dropsAtEnd(ctx, "cachesidecar")
	cluster := c.hosts(ctx, c.p.Hosts, c.config("cachesidecar", "changed", "id"))
	hosts, reader := newDelays(), newDelays()
	for n := range c.p.Commits {
		committed, last := c.commit(ctx, cluster, n+(round+1)*c.p.Commits)
		_ = hosts.RecordValue(int64(last.Sub(committed)))
		select {
		case at := <-got:
			_ = reader.RecordValue(int64(max(0, at.Sub(committed))))
		case err := <-ended:
			ended <- err
			fail("the bare reader's stream has ended: %w", err)
		}
	}
	shape := fmt.Sprintf("a COMMIT, %d hosts", c.p.Hosts)
	c.put(shape, record.Feed, percentiles("", "ms", hosts)...)
	c.put(shape, record.BareReader, percentiles("", "ms", reader)...)
}

// commit changes a row that all hosts have in their caches. It returns when the COMMIT had returned, and
// when no host returned the old value any more.
func (c *changes) commit(ctx context.Context, cluster *peers.Cluster, n int) (committed, last time.Time) {
	id := n%changedRows + 1
	key := strconv.Itoa(id)
	old := c.everywhere(ctx, cluster, key)
	must(c.conn.Exec(ctx, "UPDATE changed SET body = $2 WHERE id = $1", id, fmt.Sprint(time.Now().UnixNano())))
	committed = time.Now()
	for _, h := range cluster.Hosts() {
		for {
			item, err := h.App().Get(ctx, key, cachesidecar.GetOptions{NoLoad: true})
			if errors.Is(err, cachesidecar.ErrNotFound) || err == nil && string(item.Value) != old {
				break
			}
			if check(err); time.Since(committed) > followTime {
				fail("%s has the old value %v after the commit", h.Node(), followTime)
			}
			sleepUntil(time.Now().Add(pollEach))
		}
	}
	return committed, time.Now()
}

// everywhere has each host keep a key, as its owner or as a copy, and returns the value.
func (c *changes) everywhere(ctx context.Context, cluster *peers.Cluster, key string) (value string) {
	for _, h := range cluster.Hosts() {
		for begun := time.Now(); ; {
			item := must(h.App().Get(ctx, key, cachesidecar.GetOptions{}))
			if value = string(item.Value); item.Source == "l1" || item.Source == "l2" {
				break
			}
			if time.Since(begun) > followTime {
				fail("%s has no copy of %s after %v", h.Node(), key, followTime)
			}
			sleepUntil(time.Now().Add(pollEach))
		}
	}
	return value
}

// readRows changes many rows while slots keep them, and has each side read them.
func (c *changes) readRows(ctx context.Context, round int) {
	defer c.scope()()
	c.dropsAtEnd(ctx, "cachesidecar")
	c.dropsAtEnd(ctx, "reader")
	config := c.config("cachesidecar", "changed", "id")
	func() { // make the slots
		defer c.scope()()
		c.reader(ctx, "cachesidecar", "changed", "id")
		c.hosts(ctx, 1, config)
	}()
	for i := range c.p.Rows {
		must(c.conn.Exec(ctx, "UPDATE changed SET body = 'new' WHERE id = $1", i%changedRows+1))
	}
	sides := []struct {
		name string
		read func() float64
	}{{record.BareReader, func() float64 { return c.readAll(ctx) }}, {record.Feed, func() float64 { return c.followAll(ctx, config) }}}
	for _, s := range rotated(sides, round+1) {
		c.put(record.Commas(c.p.Rows)+" rows in the log", s.name, figure{"rows/s", s.read()})
	}
}

// readAll returns how many rows a second the bare reader takes, from the first one on.
func (c *changes) readAll(ctx context.Context) (perSecond float64) {
	defer c.scope()()
	stream := c.reader(ctx, "cachesidecar", "changed", "id")
	var first time.Time
	for rows := 0; rows < c.p.Rows; {
		if t := must(stream.Receive(ctx)); t != nil {
			if rows += t.Rows; first.IsZero() && rows > 0 {
				first = time.Now()
			}
		}
	}
	return float64(c.p.Rows) / time.Since(first).Seconds()
}

// followAll returns how many rows a second a host takes, from its last look without a row until all of
// their keys are deleted. A host may take all rows between two looks.
func (c *changes) followAll(ctx context.Context, config string) (perSecond float64) {
	defer c.scope()()
	begun := time.Now()
	cluster := c.startHosts(ctx, 1, 0, peers.Options{Dir: c.dir, Bytes: c.p.Limit, Label: "-changes", Config: config})
	c.await(ctx, cluster, func(s *cachesidecar.ChangesStats) bool {
		if s.Rows == 0 {
			begun = time.Now()
		}
		return s.Rows >= int64(c.p.Rows) && s.UnderWay == 0
	})
	return float64(c.p.Rows) / time.Since(begun).Seconds()
}

// cost runs pgbench with a feed, with a bare reader, and with neither.
func (c *changes) cost(ctx context.Context, round int) {
	sides := []string{record.NoStream, record.BareReader, record.Feed}
	for _, side := range rotated(sides, round+1) {
		c.put("pgbench -N", side, figure{"transactions/s", c.pgbench(ctx, side)})
	}
}

// tps finds the figure in what pgbench prints.
var tps = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)

func (c *changes) pgbench(ctx context.Context, side string) (perSecond float64) {
	defer c.scope()()
	switch side {
	case record.BareReader:
		c.follow(ctx, "accounts", "pgbench_accounts", "aid", func() {})
	case record.Feed:
		c.dropsAtEnd(ctx, "cachesidecar")
		cluster := c.hosts(ctx, 1, c.config("accounts", "pgbench_accounts", "aid"))
		c.closes(func() {
			c.await(ctx, cluster, func(s *cachesidecar.ChangesStats) bool { return s.UnderWay == 0 && s.LagMS < 1000 })
		})
	}
	out := must(c.db.Run(ctx, "pgbench", "-N", "-n", "-c", strconv.Itoa(c.p.Clients), "-T", strconv.Itoa(c.p.Seconds), c.db.DSN()))
	m := tps.FindStringSubmatch(out)
	if m == nil {
		fail("pgbench prints no tps: %s", out)
	}
	return must(strconv.ParseFloat(m[1], 64))
}
