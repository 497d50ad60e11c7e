// Package postgres loads values from PostgreSQL with one parameterised query.
//
// The input is a query whose $1 is the key. The output is one column unchanged, or the
// row as JSON or msgpack. No row means "absent"; two rows are an error. Check asks the
// server whether the query is valid, so that an error in it is found at the start.
//
// Unchanged, a bytea gives its bytes, and any other type gives the text that psql shows.
// JSON is made by row_to_json in the server. In msgpack, a row is a map of the columns
// in their order. NULL, booleans, integers, floats and bytea have the corresponding
// msgpack type. Any other type is text, also numeric, because msgpack has no type for
// it.
//
// Writes run two statements of the operator, a list runs a query of all keys.
//
// pgx keeps a pool, which has one goroutine until Close. A connection that is given up
// is closed in the background, within twice the timeout. The package does not listen for
// notifications. It closes the connection to a server that sends more than was
// requested.
package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Format is the form that a row is converted to.
type Format string

// The formats.
const (
	Column  Format = "column"
	JSON    Format = "json"
	Msgpack Format = "msgpack"
)

// Config has the settings of the database and its queries.
type Config struct {
	// DSN is a URL or pairs of key=value. It contains the password, so no error shows
	// it. One of DSN, DSNFile and DSNEnv is required.
	DSN string `yaml:"-"`
	// DSNFile is a file that contains the DSN. Form: path. Required, if DSNEnv is not given.
	DSNFile string `yaml:"dsn_file"`
	// DSNEnv is an environment variable that contains the DSN. Form: name. Required, if
	// DSNFile is not given.
	DSNEnv string `yaml:"dsn_env"`

	// Query is the statement that selects a value. Required. Bounds: with "$1", the key.
	Query string `yaml:"query" answers:"yes"`
	// Format is how a row becomes a value. Form: "column", "json" or "msgpack". Default:
	// "column".
	Format Format `yaml:"format" answers:"yes" default:"column"`
	// Connections is the largest number of connections. Default: 16. Bounds: up to 65536.
	Connections int `yaml:"connections"`

	Write WriteConfig `yaml:",inline"`
}

const (
	defaultConnections = 16
	defaultTimeout     = 5 * time.Second // of a load, including connecting
)

// Kind returns "postgres".
func (Config) Kind() string { return "postgres" }

// Descriptors returns the maximum number of file descriptors that calls use.
func (cfg Config) Descriptors() int { return cmp.Or(cfg.Connections, defaultConnections) }

// Open opens the origin. It connects at the first load.
func (cfg Config) Open(o loader.OriginOptions) (*loader.Origin, error) {
	s, err := New(cfg, o)
	if err != nil {
		return nil, err
	}
	return &loader.Origin{
		Source: s, Writer: s, List: s.NewLister, Checks: []loader.Checker{s}, Close: s.Close, Spelling: s.spelling,
		Secrets: []string{s.cfg.DSN, s.pool.Config().ConnConfig.Password},
	}, nil
}

// dsn returns the DSN from the setting that has it.
func (cfg *Config) dsn() (string, error) {
	if cfg.DSN != "" {
		return cfg.DSN, nil
	}
	dsn, err := settings.Secret("dsn", cfg.DSNFile, cfg.DSNEnv)
	if err == nil && dsn == "" {
		err = errors.New("there is no DSN: give dsn_file, the path of a file that contains it, " +
			"or dsn_env, the name of a variable")
	}
	return dsn, err
}

// Source loads values from the database, and writes them there. It is safe for concurrent use.
type Source struct {
	cfg     Config
	options loader.OriginOptions
	pool    *pgxpool.Pool
	terms   loader.Terms // of the pool's connections, beside their age

	load, store, delete query // the latter two only with write-through
}

// New validates everything that does not need the server. The source connects at the
// first load.
func New(cfg Config, o loader.OriginOptions) (*Source, error) {
	var wrong settings.Problems
	var err error
	cfg.DSN, err = cfg.dsn()
	wrong.Add(err)
	wrong.Add(settings.Bounded("connections", cfg.Connections, 0, loader.MaxConnections))
	cfg.Query = statement(cfg.Query)
	switch {
	case !strings.Contains(cfg.Query, "$1"):
		wrong.Addf("query", ": it must have $1, where the key goes")
	case strings.Contains(cfg.Query, "$2"):
		wrong.Addf("query", ": it has $2: there is one parameter, the key")
	}
	switch cfg.Format {
	case "":
		cfg.Format = Column
	case Column, Msgpack:
	case JSON:
		cfg.Query = "SELECT row_to_json(cachesidecar_row) FROM (" + cfg.Query + "\n) cachesidecar_row"
	default:
		wrong.Addf("format", "%q: give %s, %s or %s", cfg.Format, Column, JSON, Msgpack)
	}
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	if o, err = o.WithDefaults("postgres", defaultTimeout, cfg.Write != WriteConfig{}); err != nil {
		return nil, err
	}
	s := &Source{cfg: cfg, options: o}
	s.load = query{sql: cfg.Query, valid: s.valid}
	if o.WriteThrough {
		if err := s.writes(); err != nil {
			return nil, err
		}
	}
	pc, err := parseDSN(cfg.DSN)
	if err != nil {
		return nil, fmt.Errorf("postgres origin: %w", err)
	}
	pc.MaxConns = int32(cfg.Descriptors())
	pc.MaxConnLifetime = min(pc.MaxConnLifetime, loader.MaxConnAge*9/10)
	pc.MaxConnLifetimeJitter = loader.MaxConnAge / 10
	pc.ConnConfig.ConnectTimeout = o.Timeout
	setTexts(&pc.ConnConfig.Config)
	bound(&pc.ConnConfig.Config, o.MaxValue, 2*(o.MaxValue+rowOverhead), o.Timeout, o.Memory)
	pc.BeforeConnect = mayConnect
	pc.PrepareConn = func(ctx context.Context, c *pgx.Conn) (bool, error) { return lives(ctx, c), nil }
	if s.pool, err = pgxpool.NewWithConfig(context.Background(), pc); err != nil {
		return nil, fmt.Errorf("postgres origin: %w", err)
	}
	return s, nil
}

// lives reports whether a connection can be used: the server may have ended it while it was idle.
// What the server has sent meanwhile may be a notice, or an error.
func lives(ctx context.Context, c *pgx.Conn) bool {
	return loader.Idle(c.PgConn().Conn()) == nil || c.Ping(ctx) == nil
}

// statement removes a trailing semicolon, which would make one statement look like two.
func statement(sql string) string { return strings.TrimRight(strings.TrimSpace(sql), "; \n\t") }

// Close closes the connections. It waits for loads in progress.
func (s *Source) Close() error {
	s.pool.Close()
	return nil
}

// Check asks the server whether the query and the statements are valid, and returns what is wrong with
// them.
func (s *Source) Check(ctx context.Context) error {
	if s.options.WriteThrough {
		return s.check(ctx, &s.load, &s.store, &s.delete)
	}
	return s.check(ctx, &s.load)
}

// check asks the server about queries, on a connection of the pool.
func (s *Source) check(ctx context.Context, queries ...*query) error {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	c, err := s.pool.Acquire(ctx)
	if err != nil {
		return classified(err)
	}
	defer c.Release()
	for _, q := range queries {
		if _, err := q.describe(ctx, c.Conn()); err != nil {
			return err
		}
	}
	return nil
}

// valid returns what is wrong with the query.
func (s *Source) valid(d *pgconn.StatementDescription) error {
	switch {
	case len(d.ParamOIDs) != 1:
		return permanent("its query has %d parameters: give one, $1, the key", len(d.ParamOIDs))
	case s.cfg.Format == Column && len(d.Fields) != 1:
		return permanent("its query gives %d columns: select one, or set the format to json or msgpack",
			len(d.Fields))
	case len(d.Fields) == 0:
		return permanent("its query gives no columns: select some")
	}
	return nil
}

// Load runs the query for one key. An absent key gives ErrAbsent.
func (s *Source) Load(ctx context.Context, key []byte) (loader.Value, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	c, err := s.pool.Acquire(ctx)
	if err != nil {
		return loader.Value{}, classified(err)
	}
	defer c.Release()
	bind := func(d *pgconn.StatementDescription) (in input, err error) {
		format, err := s.keyFormat(d.ParamOIDs[0], key)
		return input{[][]byte{key}, []int16{format}}, err
	}
	var v loader.Value
	var encodeErr error
	n := 0
	_, err = s.load.exec(ctx, c.Conn(), bind, func(d *pgconn.StatementDescription, rows *pgconn.ResultReader) error {
		for n = 0; rows.NextRow(); n++ {
			fields := rows.FieldDescriptions()
			if err := asDescribed(d, fields); err != nil {
				return err
			}
			if n == 0 {
				v, encodeErr = s.encode(fields, rows.Values())
			}
		}
		return nil
	})
	var big *pgproto3.ExceededMaxBodyLenErr
	var not *unsent
	switch {
	case errors.As(err, &not):
		return loader.Value{}, not.error
	case errors.As(err, &big), errors.Is(err, errRows):
		return loader.Value{}, s.tooLarge()
	case errors.Is(err, loader.ErrNoMemory):
		return loader.Value{}, loader.ErrNoMemory
	case err != nil:
		s.elsewhere(err)
		return loader.Value{}, classified(err)
	case n == 0:
		return loader.Value{}, loader.ErrAbsent
	case n > 1:
		return loader.Value{}, permanent("its query gives %d rows for one key: add LIMIT 1, or a condition", n)
	case encodeErr != nil:
		return loader.Value{}, encodeErr
	case len(v.Bytes) > s.options.MaxValue:
		return loader.Value{}, s.tooLarge()
	}
	return v, nil
}

const notText = "PostgreSQL's text is UTF-8 without zero bytes"

// paramFormat returns the format in which bytes are sent as a parameter. A parameter
// that is not bytea is sent as text; fits is false for bytes that text cannot contain.
func paramFormat(oid uint32, b []byte) (format int16, fits bool) {
	if oid == pgtype.ByteaOID {
		return pgx.BinaryFormatCode, true
	}
	return pgx.TextFormatCode, utf8.Valid(b) && !slices.Contains(b, 0)
}

// keyFormat returns the format in which a key is sent, or the reason why it is not.
func (s *Source) keyFormat(oid uint32, key []byte) (format int16, err error) {
	format, fits := paramFormat(oid, key)
	if !fits {
		return format, fmt.Errorf("%w: %s", loader.ErrBadKey, notText)
	}
	return format, s.spelt(oid, key)
}

// spelt returns an error if a key is written otherwise than the feed of its namespace knows it.
func (s *Source) spelt(oid uint32, key []byte) error {
	if form := written[oid]; s.options.OneSpelling && form != nil && !form.Match(key) {
		return fmt.Errorf("%w: the namespace has a feed of changes, which knows the key of a row as "+
			"PostgreSQL writes it alone, and this one is written otherwise: as 042, or a UUID in capitals, would be",
			loader.ErrBadKey)
	}
	return nil
}

// spelling returns the regular expression of the keys that keyFormat lets pass. It asks the server for the type
// of $1 if that is not known.
func (s *Source) spelling(ctx context.Context) (string, error) {
	if !s.options.OneSpelling {
		return "", nil
	}
	oid, err := s.keyType(ctx)
	if form := written[oid]; err == nil && form != nil {
		return form.String(), nil
	}
	return "", err
}

// keyType returns the type of the key in the query.
func (s *Source) keyType(ctx context.Context) (uint32, error) {
	if s.load.last.Load() == nil {
		if err := s.check(ctx, &s.load); err != nil {
			return 0, err
		}
	}
	return s.load.last.Load().ParamOIDs[0], nil
}

// elsewhere ends all connections if the server says that it only reads: after a failover it is a standby,
// and the next connection looks up the server's name. (A server that becomes a standby otherwise restarts;
// one behind a proxy does it unseen.)
func (s *Source) elsewhere(err error) {
	var pe *pgconn.PgError
	readOnly := errors.As(err, &pe) && pe.Code == "25006" // read_only_sql_transaction
	if readOnly && s.terms.End(s.terms.Begin()) {
		s.pool.Reset()
	}
}

func (s *Source) tooLarge() error {
	return fmt.Errorf("%w: postgres origin: more than %d bytes", loader.ErrTooLarge, s.options.MaxValue)
}

// permanent returns an error that a retry does not change.
func permanent(format string, args ...any) error {
	return fmt.Errorf("%w: postgres origin: %w", loader.ErrPermanent, fmt.Errorf(format, args...))
}

// noUTF8 reports whether a text of the database has no form in UTF-8, or one in UTF-8 none in its encoding.
func noUTF8(pe *pgconn.PgError) bool { return pe.Code == "22021" || pe.Code == "22P05" }

// unfit reports whether a parameter is not a valid value of its type. The message of pe
// may contain the parameter.
func unfit(pe *pgconn.PgError) bool {
	return slices.Contains([]string{"22P02", "22003", "22007", "22008"}, pe.Code) || noUTF8(pe)
}

// class reports whether an error is of one of PostgreSQL's classes.
func class(pe *pgconn.PgError, classes ...string) bool {
	return len(pe.Code) == 5 && slices.Contains(classes, pe.Code[:2])
}

// classified returns an error by PostgreSQL's code: errors of the key, of the query, or of
// the server. Only errors of the server may be retried.
func classified(err error) error {
	var pe *pgconn.PgError
	if errors.Is(err, errLogins) {
		return errLogins
	}
	if !errors.As(err, &pe) {
		return fmt.Errorf("postgres origin: %w", err)
	}
	switch {
	case noUTF8(pe):
		return fmt.Errorf("%w: postgres origin: it is no text of the database's encoding, or its row has a text that "+
			"is none of UTF-8 (%s)", loader.ErrBadKey, pe.Code)
	case unfit(pe):
		return fmt.Errorf("%w: postgres origin: it is no value of $1's type (%s)", loader.ErrBadKey, pe.Code)
	case class(pe, "28", "3D"), class(pe, "42") && pe.SeverityUnlocalized == "FATAL": // who connects, and to what
		return fmt.Errorf("%w: postgres origin: %s (%s)", loader.ErrRefused, pe.Message, pe.Code)
	case class(pe, "22", "42"):
		return permanent("%s (%s)", pe.Message, pe.Code)
	}
	return fmt.Errorf("postgres origin: %s (%s)", pe.Message, pe.Code)
}
