package postgres

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Lister runs a query of all keys.
type Lister struct {
	source *Source
	list   loader.List
}

// NewLister validates everything that does not need the server.
func (s *Source) NewLister(list loader.List) (*Lister, error) {
	list, err := list.Only("query")
	if err != nil {
		return nil, err
	}
	list.Query = statement(list.Query)
	if list.Query == "" {
		return nil, errors.New("postgres origin: its list needs a query that gives all keys")
	}
	if strings.Contains(list.Query, "$1") {
		return nil, errors.New("postgres origin: the query of its list has $1: it gives all keys, without parameters")
	}
	return &Lister{s, list}, nil
}

// Check asks the server to prepare the query, and returns what is wrong with it.
func (l *Lister) Check(ctx context.Context) error {
	return l.source.check(ctx, func(ctx context.Context, c *pgx.Conn) error {
		_, err := l.prepare(ctx, c)
		return err
	})
}

func (l *Lister) prepare(ctx context.Context, c *pgx.Conn) (*pgconn.StatementDescription, error) {
	d, err := c.Prepare(ctx, l.list.Query, l.list.Query)
	switch {
	case err != nil:
		return nil, failed(err)
	case len(d.ParamOIDs) != 0:
		return nil, permanent("the query of its list has %d parameters: give one without", len(d.ParamOIDs))
	case len(d.Fields) != 1:
		return nil, permanent("the query of its list gives %d columns: select one, the key", len(d.Fields))
	}
	return d, nil
}

// Keys calls each for the rows as they arrive. All rows are from one snapshot, taken
// after the call. Keys uses a connection of its own, because loads must not wait for it.
func (l *Lister) Keys(ctx context.Context, each func(key []byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, l.list.Timeout)
	defer cancel()
	cc := l.source.pool.Config().ConnConfig // a copy
	bound(&cc.Config, l.source.cfg.MaxValue, -1, l.list.Timeout)
	c, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		return failed(err)
	}
	defer c.Close(ctx)
	d, err := l.prepare(ctx, c)
	if err != nil {
		return err
	}
	format := int16(pgx.TextFormatCode)
	if d.Fields[0].DataTypeOID == pgtype.ByteaOID {
		format = pgx.BinaryFormatCode
	}
	rows := c.PgConn().ExecPrepared(ctx, d.Name, nil, nil, []int16{format})
	var refused error
	for refused == nil && rows.NextRow() {
		switch key := rows.Values()[0]; {
		case key == nil:
			refused = permanent("its list has a key that is NULL: leave such rows out")
		case kv.ValidKey(key):
			refused = each(key)
		}
	}
	if refused != nil {
		cancel() // otherwise Close reads all remaining rows
		_, _ = rows.Close()
		return refused
	}
	if _, err := rows.Close(); err != nil {
		return failed(err)
	}
	return nil
}
