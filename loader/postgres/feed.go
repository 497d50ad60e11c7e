package postgres

import (
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

	"github.com/jackc/pgx/v5/pgconn"

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
	// Tables are the tables, by schema and name, such as public.users. Form: names of tables, each
	// with its namespace and key. Required. Bounds: up to 256.
	Tables map[string]FeedTable `yaml:"tables" answers:"yes"`
	// Messages are the namespaces that a message in the log may name: pg_logical_emit_message with
	// the prefix cachesidecar. Form: list of names. Default: none. Bounds: up to 256.
	Messages []string `yaml:"messages" answers:"yes"`

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

// Open validates the settings.
func (c FeedConfig) Open() (loader.Feed, error) {
	f, err := NewFeed(c)
	if err != nil {
		return nil, err // not a nil *Feed
	}
	return f, nil
}

// Feed follows the changes of a database. It is safe for concurrent use.
type Feed struct {
	cfg     FeedConfig
	tables  map[string]*mapping
	beside  []string
	catalog atomic.Value // string: the digest of the last stream
	told    sync.Map     // slots that were told to be left behind, by name

	// Since this process followed the slot last:
	inUse   atomic.Int32           // how often others were found to use it
	foreign atomic.Pointer[string] // where it was confirmed by then; nil: too few times to tell
}

// mapping is a table and the parts of the keys of its rows: texts, and columns between them.
type mapping struct {
	namespace string
	texts     []string // one more than columns
	columns   []string
}

const maxTables = 256

var (
	slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)
	inBraces = regexp.MustCompile(`\{([^{}]*)\}`)
)

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
		wrong.Addf("slot %q: give 1 to 63 of a to z, 0 to 9 and _", cfg.Slot)
	}
	if len(cfg.Tables) == 0 || len(cfg.Tables) > maxTables {
		wrong.Addf("tables: %d are given: give 1 to %d", len(cfg.Tables), maxTables)
	}
	f := &Feed{cfg: cfg, tables: map[string]*mapping{}}
	for _, name := range slices.Sorted(maps.Keys(cfg.Tables)) {
		m, err := newMapping(name, cfg.Tables[name])
		wrong.Within("tables: "+name, err)
		f.tables[name] = m
	}
	for _, name := range cfg.Messages {
		if !kv.ValidNamespace(name) {
			wrong.Addf("messages: %q is no name of a namespace", name)
		}
	}
	if len(cfg.Messages) > maxTables {
		wrong.Addf("messages: %d are given: give at most %d", len(cfg.Messages), maxTables)
	}
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	if _, err := f.config(false); err != nil {
		return nil, err
	}
	return f, nil
}

func newMapping(name string, t FeedTable) (*mapping, error) {
	var wrong settings.Problems
	if schema, table, ok := strings.Cut(name, "."); !ok || schema == "" || table == "" {
		wrong.Addf("give schema and name, such as public.users")
	}
	if !kv.ValidNamespace(t.Namespace) {
		wrong.Addf("namespace %q: give the name of a namespace", t.Namespace)
	}
	m := &mapping{namespace: t.Namespace}
	at := 0
	for _, i := range inBraces.FindAllStringSubmatchIndex(t.Key, -1) {
		m.texts = append(m.texts, t.Key[at:i[0]])
		m.columns = append(m.columns, t.Key[i[2]:i[3]])
		at = i[1]
	}
	m.texts = append(m.texts, t.Key[at:])
	if len(m.columns) == 0 || strings.ContainsAny(strings.Join(m.texts, ""), "{}") ||
		slices.Contains(m.columns, "") {
		wrong.Addf("key %q: give columns in braces, such as {id}", t.Key)
	}
	return m, wrong.Err()
}

// places returns where the columns of the key are among those of the table.
func (m *mapping) places(columns []string) (list []int, err error) {
	for _, c := range m.columns {
		i := slices.Index(columns, c)
		if i < 0 {
			return nil, fmt.Errorf("the key names column %q, which the publication does not have: %w",
				c, loader.ErrFeed)
		}
		list = append(list, i)
	}
	return list, nil
}

// key returns the key of a row.
func (m *mapping) key(values []string) string {
	var b strings.Builder
	for i, v := range values {
		b.WriteString(m.texts[i])
		b.WriteString(v)
	}
	b.WriteString(m.texts[len(values)])
	return b.String()
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

// own notes that this process follows the slot.
func (f *Feed) own() {
	f.inUse.Store(0)
	f.foreign.Store(nil)
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

// config returns the settings of a connection.
func (f *Feed) config(replication bool) (*pgconn.Config, error) {
	c, err := pgconn.ParseConfig(f.cfg.DSN)
	if err != nil { // as in New: pgx's own error repeats the DSN
		return nil, errors.New("its DSN cannot be read: give postgres://user:password@host:port/database, or pairs " +
			"such as host=... dbname=... user=... password=... in one line")
	}
	c.ConnectTimeout = feedTime
	c.RuntimeParams["application_name"] = "cachesidecar"
	c.RuntimeParams["jit"] = "off" // it compiles the look at the catalog for 0.8 s
	if replication {
		c.RuntimeParams["replication"] = "database"
		// While a snapshot is exported:
		c.RuntimeParams["idle_in_transaction_session_timeout"] = "0"
		c.RuntimeParams["wal_sender_timeout"] = "10s" // a walsender of a host that has vanished ends by itself
		// The texts of values do not depend on what the database or the role has set.
		c.RuntimeParams["timezone"] = "UTC"
		c.RuntimeParams["client_encoding"] = "UTF8"
		c.RuntimeParams["datestyle"] = "ISO"
		c.RuntimeParams["intervalstyle"] = "postgres"
		c.RuntimeParams["bytea_output"] = "hex"
		c.RuntimeParams["extra_float_digits"] = "1"
	}
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

// ask runs a statement and returns its rows as text.
func ask(ctx context.Context, conn *pgconn.PgConn, sql string) ([][]string, error) {
	ctx, cancel := context.WithTimeout(ctx, feedTime)
	defer cancel()
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var rows [][]string
	for _, res := range results {
		for _, row := range res.Rows {
			var texts []string
			for _, v := range row {
				texts = append(texts, string(v))
			}
			rows = append(rows, texts)
		}
	}
	return rows, nil
}

// quoted returns an SQL literal.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// identifier returns a quoted SQL name.
func identifier(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
