package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/loader"
)

// FeedConfig has the settings of a feed of changes: which rows stand for which keys.
type FeedConfig struct {
	// DSNFile is a file that contains the DSN of the server that loads ask, not of a pooler, for a
	// role that may replicate. Form: path. Required, if DSNEnv is not given.
	DSNFile string `yaml:"dsn_file"`
	// DSNEnv is an environment variable that contains the DSN. Form: name. Required, if DSNFile is
	// not given.
	DSNEnv string `yaml:"dsn_env"`
	// Slot is the replication slot. It is of this feed of this cluster alone, and the sidecar makes it.
	// Default: "cachesidecar". Bounds: 1 to 63 of a to z, 0 to 9 and _.
	Slot string `yaml:"slot"`
	// Publication is the publication that has the tables. Form: name. Default: "cachesidecar".
	Publication string `yaml:"publication"`
	// Tables are the tables, by schema and name, such as public.users. A name with a dot is in double quotes.
	// Form: names of tables, each with its namespace and key. Required. Bounds: up to 256.
	Tables map[string]FeedTable `yaml:"tables" answers:"yes"`
	// Messages are the namespaces that a message in the log may name. It comes from pg_logical_emit_message
	// with the prefix cachesidecar. Form: list of names. Default: none. Bounds: up to 256.
	Messages []string `yaml:"messages" answers:"set"`

	DSN string `yaml:"-"`
}

// FeedTable says which key a row of a table stands for.
type FeedTable struct {
	// Namespace is the namespace of the keys. Form: name. Required.
	Namespace string `yaml:"namespace" answers:"yes"`
	// Key is the key of a row, with columns in braces: "{id}". Required. Bounds: columns of the
	// table's replica identity.
	Key string `yaml:"key" answers:"yes"`
}

// Kind returns "postgres".
func (FeedConfig) Kind() string { return "postgres" }

// Mapped returns the namespaces of the tables.
func (feed FeedConfig) Mapped() (namespaces []string) {
	for _, t := range feed.Tables {
		namespaces = append(namespaces, t.Namespace)
	}
	return namespaces
}

// Open validates the settings.
func (feed FeedConfig) Open() (loader.Feed, error) {
	f, err := NewFeed(feed)
	if err != nil {
		return nil, err // not a nil *Feed
	}
	return f, nil
}

// Feed follows the changes of a database. It is safe for concurrent use.
type Feed struct {
	cfg    FeedConfig
	tables map[table]*mapping
	beside []string
	memory loader.Memory          // of the server's answers; nil: no bound
	fits   atomic.Pointer[fitted] // the last catalog that fitted the settings; nil: none
	told   sync.Map               // slots that were told to be left behind, by name
	tells  atomic.Int64           // their number
	failed failures               // of the stream of the moment

	forms   func(ctx context.Context, namespace string) ([]string, error) // of keys; nil: not known
	spelled atomic.Value                                                  // string: what fitted each other last
}

// fitted is a catalog that fits the settings.
type fitted struct {
	digest  string
	columns map[column]keyColumn // see Feed.keyColumns
}

const maxTables = 256

var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// NewFeed validates everything that does not need the server.
func NewFeed(cfg FeedConfig) (*Feed, error) {
	var wrong settings.Problems
	dsn := Config{DSN: cfg.DSN, DSNFile: cfg.DSNFile, DSNEnv: cfg.DSNEnv}
	var err error
	cfg.DSN, err = dsn.dsn()
	wrong.Add(err)
	if cfg.Slot == "" {
		cfg.Slot = "cachesidecar"
	}
	if cfg.Publication == "" {
		cfg.Publication = "cachesidecar"
	}
	if !slotName.MatchString(cfg.Slot) {
		wrong.Addf("slot", "%q: give 1 to 63 of a to z, 0 to 9 and _", cfg.Slot)
	}
	if len(cfg.Tables) == 0 || len(cfg.Tables) > maxTables {
		wrong.Addf("tables", ": %d are given: give 1 to %d", len(cfg.Tables), maxTables)
	}
	f := &Feed{cfg: cfg, tables: map[table]*mapping{}}
	for _, name := range slices.Sorted(maps.Keys(cfg.Tables)) {
		m, err := newMapping(name, cfg.Tables[name])
		if other := f.tables[m.table]; err == nil && other != nil {
			err = fmt.Errorf("this is %s too: give a table once", other.as)
		}
		wrong.Add(settings.Within("tables."+name, err))
		f.tables[m.table] = m
	}
	for _, name := range cfg.Messages {
		if !kv.ValidNamespace(name) {
			wrong.Addf("messages", ": %q is no name of a namespace", name)
		}
	}
	if len(cfg.Messages) > maxTables {
		wrong.Addf("messages", ": %d are given: give at most %d", len(cfg.Messages), maxTables)
	}
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	if _, err := f.config(false); err != nil {
		return nil, err
	}
	return f, nil
}

// ordered returns the tables in the order of their names.
func (f *Feed) ordered() []*mapping {
	list := slices.Collect(maps.Values(f.tables))
	slices.SortFunc(list, func(a, b *mapping) int { return cmp.Compare(a.as, b.as) })
	return list
}

// Namespaces returns the namespaces whose keys the feed deletes, sorted.
func (f *Feed) Namespaces() []string {
	all := map[string]bool{}
	for _, m := range f.tables {
		all[m.namespace] = true
	}
	for _, name := range f.cfg.Messages {
		all[name] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// Secrets implements loader.Feed.
func (f *Feed) Secrets() []string {
	c, err := f.config(false)
	if err != nil {
		return []string{f.cfg.DSN}
	}
	return []string{f.cfg.DSN, c.Password}
}

// feedTime bounds each statement and the connecting.
const feedTime = 10 * time.Second

// Bounds of the answers to a feed's statements, in bytes. The stream is no answer.
const (
	maxAnswer = 1 << 20   // of the rows of one
	maxText   = 128 << 10 // of a row, such as a snapshot with 10,000 transactions
)

// ChargeTo tells a feed which memory the answers to its statements take. It is called before the feed is used.
func (f *Feed) ChargeTo(memory loader.Memory) { f.memory = memory }

// config returns the settings of a connection.
func (f *Feed) config(replication bool) (*pgconn.Config, error) {
	pool, err := parseDSN(f.cfg.DSN)
	if err != nil {
		return nil, err
	}
	c := &pool.ConnConfig.Config
	c.ConnectTimeout = feedTime
	setTexts(c)
	bound(c, maxText, maxAnswer, feedTime, f.memory)
	setParam(c, "application_name", "cachesidecar")
	setParam(c, "jit", "off")                        // it compiles the look at the catalog for 0.8 s
	setParam(c, "standard_conforming_strings", "on") // see quoted
	// The look at the catalog reads by index what it needs, and not the columns of all tables.
	setParam(c, "enable_hashjoin", "off")
	setParam(c, "enable_mergejoin", "off")
	if replication {
		setLogTexts(c)
		setParam(c, "replication", "database")
		setParam(c, "idle_in_transaction_session_timeout", "0") // while a snapshot is exported
		// A walsender of a host that has vanished ends by itself.
		setParam(c, "wal_sender_timeout", "10s")
	}
	return c, nil
}

// parseDSN reads the DSN of an origin or a feed. It may have the parameters of a pool, which are no settings of
// the server, also where there is none: both are given the same one.
func parseDSN(dsn string) (*pgxpool.Config, error) {
	c, err := pgxpool.ParseConfig(dsn)
	if err != nil { // pgx's own error repeats the DSN, and hides the password only if it recognised one
		return nil, errors.New("its DSN cannot be read: give postgres://user:password@host:port/database, or pairs " +
			"such as host=... dbname=... user=... password=... in one line")
	}
	c.ConnConfig.BuildFrontend = newFrontend(&c.ConnConfig.Config)
	return c, nil
}

// connect opens a connection.
func (f *Feed) connect(ctx context.Context, replication bool) (*pgconn.PgConn, error) {
	c, err := f.config(replication)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, feedTime)
	defer cancel()
	conn, err := pgconn.ConnectConfig(ctx, c)
	var answer *pgconn.PgError
	if errors.As(err, &answer) && // PgBouncer does not know the parameters of a connection
		(replication && strings.Contains(answer.Message, "replication") || answer.Code == "08P01") {
		return nil, fmt.Errorf("%w: the server takes no connection for replication: give the server itself "+
			"and not a pooler, and a role with REPLICATION (%w)", loader.ErrFeed, err)
	}
	return conn, err
}

var errUnknownForm = errors.New("the server has answered in an unknown form")

// ask runs a statement and returns its rows as text, each of at least so many columns.
func ask(ctx context.Context, conn *pgconn.PgConn, columns int, sql string) ([][]string, error) {
	ctx, cancel := context.WithTimeout(ctx, feedTime)
	defer cancel()
	results, err := execute(ctx, conn, sql)
	if err != nil {
		return nil, err
	}
	var rows [][]string
	for _, res := range results {
		for _, row := range res.Rows {
			if len(row) < columns {
				return nil, errUnknownForm
			}
			var texts []string
			for _, v := range row {
				texts = append(texts, string(v))
			}
			rows = append(rows, texts)
		}
	}
	return rows, nil
}

// execute runs statements. An answer that is too long is a gap: it may stay so, and the slot would keep the
// server's log meanwhile.
func execute(ctx context.Context, conn *pgconn.PgConn, sql string) ([]*pgconn.Result, error) {
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil { // pgx may say no more than that the connection is closed
		err = cmp.Or(timeoutConnBelow(conn.Conn()).messages.refused, err)
	}
	if errors.Is(err, errRows) {
		return nil, fmt.Errorf("%w: an answer of the server has more than %s, or a row of it more than %s: are very "+
			"many transactions open, or columns in the keys?", loader.ErrGap, humanize.IBytes(maxAnswer),
			humanize.IBytes(maxText+rowOverhead))
	}
	return results, err
}

// one returns the row of a statement that gives one.
func one(rows [][]string, err error) ([]string, error) {
	if err == nil && len(rows) != 1 {
		err = errUnknownForm
	}
	if err != nil {
		return nil, err
	}
	return rows[0], nil
}

// quoted returns an SQL literal.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// identifier returns a quoted SQL name.
func identifier(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
