package postgres

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachesidecar/cachesidecar/loader"
)

// lister runs a query of all keys.
type lister struct {
	source *Source
	list   loader.List
	keys   query
}

// NewLister validates everything that does not need the server.
func (s *Source) NewLister(list loader.List) (loader.Lister, error) {
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
	return &lister{source: s, list: list, keys: query{sql: list.Query, valid: validList}}, nil
}

// Check asks the server whether the query is valid, and returns what is wrong with it.
func (ls *lister) Check(ctx context.Context) error { return ls.source.check(ctx, &ls.keys) }

func validList(d *pgconn.StatementDescription) error {
	switch {
	case len(d.ParamOIDs) != 0:
		return permanent("the query of its list has %d parameters: give one without", len(d.ParamOIDs))
	case len(d.Fields) != 1:
		return permanent("the query of its list gives %d columns: select one, the key", len(d.Fields))
	}
	return nil
}

// Keys calls each for the rows as they arrive. All rows are from one snapshot, taken
// after the call. Keys uses a connection of its own, because loads must not wait for it.
func (ls *lister) Keys(ctx context.Context, each func(key []byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, ls.list.Timeout)
	defer cancel()
	cc := ls.source.pool.Config().ConnConfig // a copy
	bound(&cc.Config, ls.source.options.MaxValue, -1, ls.list.Timeout, nil)
	if ls.source.options.OneSpelling {
		setLogTexts(&cc.Config)
	}
	c, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		return classified(err)
	}
	defer c.Close(ctx)
	bind := func(*pgconn.StatementDescription) (input, error) { return input{}, nil }
	listing, begun, refused := ls.list.Begin(ctx, each), false, error(nil)
	read := func(d *pgconn.StatementDescription, rows *pgconn.ResultReader) error {
		for refused == nil && rows.NextRow() {
			if err := asDescribed(d, rows.FieldDescriptions()); err != nil && !begun {
				return err
			}
			begun = true
			if key := rows.Values()[0]; key != nil {
				refused = listing.Key(key)
			} else {
				refused = permanent("its list has a key that is NULL: leave such rows out")
			}
		}
		if refused != nil {
			cancel() // otherwise Close reads all remaining rows
		}
		return nil
	}
	_, err = ls.keys.exec(ctx, c, bind, read)
	var not *unsent
	switch {
	case refused != nil:
		return refused
	case errors.As(err, &not):
		return not.error
	case err != nil:
		return classified(err)
	}
	return nil
}
