// Package postgres loads values from PostgreSQL with one parameterised query.
//
// Input is a query whose $1 is the key; output is one column as it is, or the
// row as JSON or msgpack. No row is "absent", two are an error. Check asks the
// server whether the query fits, so that a wrong one is found at the start.
//
// As it is: bytea gives its bytes, everything else the text that psql shows.
// As JSON: row_to_json makes it, in the server. As msgpack: a map of the columns
// in their order; NULL, booleans, integers, floats and bytea become the like,
// everything else text, numeric too, which msgpack has no type for.
//
// A Writer runs two statements of the operator's, a Lister a query of all keys.
//
// pgx keeps a pool, whose one goroutine ends with Close; a connection that is
// given up is ended in the background, within twice the timeout. It does not listen
// for notifications. A server that says more than is asked for is cut off.
package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
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

// Format says what becomes of a row.
type Format string

// The formats.
const (
	Column  Format = "column"
	JSON    Format = "json"
	Msgpack Format = "msgpack"
)

// Config is the settings of the database and its queries.
type Config struct {
	// The DSN is a URL or pairs of key=value. It holds the password, so no error shows
	// it. One of these three is needed.
	DSN     string `yaml:"-"`
	DSNFile string `yaml:"dsn_file"` // the path of a file that holds it
	DSNEnv  string `yaml:"dsn_env"`  // the environment variable that holds it

	Query       string `yaml:"query"`       // with $1, the key; needed
	Format      Format `yaml:"format"`      // column, json or msgpack; default column
	Connections int    `yaml:"connections"` // at most; default 16

	Write WriteConfig `yaml:",inline"`

	Timeout  time.Duration `yaml:"-"` // of a load, connecting included; zero: 5 s
	MaxValue int           `yaml:"-"` // bytes; zero: 8 MiB
}

const defaultConnections = 16

// Kind returns "postgres".
func (Config) Kind() string { return "postgres" }

// Descriptors returns how many file descriptors the calls use at most.
func (c Config) Descriptors() int { return cmp.Or(c.Connections, defaultConnections) }

// Open opens the origin. It connects at the first load.
func (c Config) Open(o loader.OriginOptions) (*loader.Origin, error) {
	c.Timeout, c.MaxValue = o.Timeout, o.MaxValue
	if err := o.CheckWrites(c.Write != WriteConfig{}); err != nil {
		return nil, err
	}
	s, err := New(c)
	if err != nil {
		return nil, err
	}
	opened := &loader.Origin{
		Source:  s,
		List:    func(l loader.List) (loader.Lister, error) { return s.NewLister(l) },
		Close:   func() error { s.Close(); return nil },
		Secrets: []string{s.cfg.DSN, s.pool.Config().ConnConfig.Password},
	}
	if o.WriteThrough {
		if opened.Writer, err = s.NewWriter(c.Write); err != nil {
			s.Close()
			return nil, err
		}
	}
	return opened, nil
}

// dsn returns the DSN, wherever it stands.
func (c *Config) dsn() (string, error) {
	if c.DSN != "" {
		return c.DSN, nil
	}
	dsn, err := settings.Secret("dsn", c.DSNFile, c.DSNEnv)
	if err == nil && dsn == "" {
		err = errors.New("there is no DSN: give dsn_file, the path of a file that holds it, or dsn_env, the name of a variable")
	}
	return dsn, err
}

// Source is the origin.
type Source struct {
	cfg  Config
	pool *pgxpool.Pool
}

// rowRoom is what a row's message may have beyond the value: names, other
// columns' lengths.
const rowRoom = 64 << 10

// New checks what can be checked without the server. It connects at the first
// load.
func New(cfg Config) (*Source, error) {
	var err error
	if cfg.DSN, err = cfg.dsn(); err != nil {
		return nil, err
	}
	if err := settings.Bounded("connections", cfg.Connections, 0, loader.MaxConnections); err != nil {
		return nil, err
	}
	cfg.Query = statement(cfg.Query)
	if !strings.Contains(cfg.Query, "$1") {
		return nil, errors.New("postgres origin: its query must have $1, where the key goes")
	}
	if strings.Contains(cfg.Query, "$2") {
		return nil, errors.New("postgres origin: its query has $2: there is one parameter, the key")
	}
	switch cfg.Format {
	case "":
		cfg.Format = Column
	case Column, Msgpack:
	case JSON:
		cfg.Query = "SELECT row_to_json(cachesidecar_row) FROM (" + cfg.Query + "\n) cachesidecar_row"
	default:
		return nil, fmt.Errorf("postgres origin: format %q: give %s, %s or %s", cfg.Format, Column, JSON, Msgpack)
	}
	if cfg.Timeout < 0 || cfg.MaxValue < 0 || cfg.MaxValue > math.MaxInt-rowRoom {
		return nil, fmt.Errorf("postgres origin: timeout %v, value %d: give zero for the defaults, or more", cfg.Timeout, cfg.MaxValue)
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, 5*time.Second)
	cfg.MaxValue = cmp.Or(cfg.MaxValue, 8<<20)
	cfg.Connections = cmp.Or(cfg.Connections, defaultConnections)
	pc, err := pgxpool.ParseConfig(cfg.DSN)
	if err != nil {
		// pgx's own text repeats the DSN, and leaves out only a password that
		// it has understood as one.
		return nil, errors.New("postgres origin: its DSN cannot be read: give postgres://user:password@host:port/database, or pairs such as host=... dbname=... user=... password=... in one line")
	}
	pc.MaxConns = int32(cfg.Connections)
	pc.ConnConfig.ConnectTimeout = cfg.Timeout
	bound(&pc.ConnConfig.Config, cfg.MaxValue, 2*(cfg.MaxValue+rowRoom), cfg.Timeout)
	pool, err := pgxpool.NewWithConfig(context.Background(), pc)
	if err != nil {
		return nil, fmt.Errorf("postgres origin: %w", err)
	}
	return &Source{cfg: cfg, pool: pool}, nil
}

// bound holds a connection to so many bytes of a value, and of the rows of an answer,
// and so long for each read.
func bound(c *pgconn.Config, value, rows int, timeout time.Duration) {
	c.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		l := &limited{r: r, w: w, most: rows}
		f := pgproto3.NewFrontend(l, l)
		f.SetMaxBodyLen(value + rowRoom)
		return f
	}
	dial := (&net.Dialer{Timeout: timeout, KeepAlive: 5 * time.Minute}).DialContext
	c.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &patient{Conn: conn, most: timeout}, nil
	}
}

// statement drops what would make one statement look like two.
func statement(sql string) string { return strings.TrimRight(strings.TrimSpace(sql), "; \n\t") }

// Close ends the connections, and waits for loads under way.
func (s *Source) Close() { s.pool.Close() }

// Check has the server prepare the query, and says what is wrong with it.
func (s *Source) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	c, err := s.pool.Acquire(ctx)
	if err != nil {
		return failed(err)
	}
	defer c.Release()
	_, err = s.prepare(ctx, c.Conn())
	return err
}

// prepare is done once per connection; pgx remembers.
func (s *Source) prepare(ctx context.Context, c *pgx.Conn) (*pgconn.StatementDescription, error) {
	d, err := c.Prepare(ctx, "cachesidecar_load", s.cfg.Query)
	switch {
	case err != nil:
		return nil, failed(err)
	case len(d.ParamOIDs) != 1:
		return nil, fmt.Errorf("%w: postgres origin: its query has %d parameters: give one, $1, the key", loader.ErrPermanent, len(d.ParamOIDs))
	case s.cfg.Format == Column && len(d.Fields) != 1:
		return nil, fmt.Errorf("%w: postgres origin: its query gives %d columns: select one, or set the format to json or msgpack", loader.ErrPermanent, len(d.Fields))
	case len(d.Fields) == 0:
		return nil, fmt.Errorf("%w: postgres origin: its query gives no columns: select some", loader.ErrPermanent)
	}
	return d, nil
}

// Load runs the query for one key.
func (s *Source) Load(ctx context.Context, key []byte) (loader.Value, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	c, err := s.pool.Acquire(ctx)
	if err != nil {
		return loader.Value{}, failed(err)
	}
	defer c.Release()
	d, err := s.prepare(ctx, c.Conn())
	if err != nil {
		return loader.Value{}, err
	}
	param, fits := paramFormat(d.ParamOIDs[0], key)
	if !fits {
		return loader.Value{}, fmt.Errorf("%w: %s", loader.ErrBadKey, notText)
	}
	formats := make([]int16, len(d.Fields))
	for i, f := range d.Fields {
		if f.DataTypeOID == pgtype.ByteaOID {
			formats[i] = pgx.BinaryFormatCode
		}
	}
	rows := c.Conn().PgConn().ExecPrepared(ctx, d.Name, [][]byte{key}, []int16{param}, formats)
	var v loader.Value
	var encodeErr error
	n := 0
	for ; rows.NextRow(); n++ {
		if n == 0 {
			v.Bytes, encodeErr = s.encode(d.Fields, rows.Values())
		}
	}
	_, err = rows.Close()
	var big *pgproto3.ExceededMaxBodyLenErr
	switch {
	case errors.As(err, &big), errors.Is(err, errRows):
		return loader.Value{}, s.tooLarge()
	case err != nil:
		if stale(err) {
			_ = c.Conn().Close(ctx) // the pool makes another, which prepares anew
		}
		return loader.Value{}, failed(err)
	case n == 0:
		return loader.Value{}, loader.ErrAbsent
	case n > 1:
		return loader.Value{}, fmt.Errorf("%w: postgres origin: its query gives %d rows for one key: add LIMIT 1, or a condition", loader.ErrPermanent, n)
	case encodeErr != nil:
		return loader.Value{}, encodeErr
	case len(v.Bytes) > s.cfg.MaxValue:
		return loader.Value{}, s.tooLarge()
	}
	return v, nil
}

const notText = "PostgreSQL's text is UTF-8 without zero bytes"

// paramFormat is how bytes are sent as a parameter; text, unless they are
// bytea, cannot take all of them.
func paramFormat(oid uint32, b []byte) (format int16, fits bool) {
	if oid == pgtype.ByteaOID {
		return pgx.BinaryFormatCode, true
	}
	return pgx.TextFormatCode, utf8.Valid(b) && !slices.Contains(b, 0)
}

func (s *Source) tooLarge() error {
	return fmt.Errorf("%w: postgres origin: more than %d bytes", loader.ErrTooLarge, s.cfg.MaxValue)
}

// stale says whether the connection's prepared statement no longer fits the
// tables, or is gone.
func stale(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && (pe.Code == "0A000" || pe.Code == "26000")
}

// unfit says whether a parameter is no value of its type. The message may show
// the parameter.
func unfit(pe *pgconn.PgError) bool {
	return slices.Contains([]string{"22P02", "22003", "22007", "22008", "22021"}, pe.Code)
}

// failed sorts errors by what PostgreSQL's code says: about the key, about the
// query, or about the server. Only the last may be retried.
func failed(err error) error {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || stale(err) {
		return fmt.Errorf("postgres origin: %w", err)
	}
	switch {
	case unfit(pe):
		return fmt.Errorf("%w: postgres origin: it is no value of $1's type (%s)", loader.ErrBadKey, pe.Code)
	case strings.HasPrefix(pe.Code, "42"), strings.HasPrefix(pe.Code, "22"), strings.HasPrefix(pe.Code, "28"), strings.HasPrefix(pe.Code, "3D"):
		return fmt.Errorf("%w: postgres origin: %s (%s)", loader.ErrPermanent, pe.Message, pe.Code)
	}
	return fmt.Errorf("postgres origin: %s (%s)", pe.Message, pe.Code)
}
